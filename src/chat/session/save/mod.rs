//! Saves a session to a file, and loads it in another process.
//!
//! The checksum detects damage, not malice. So every index and length of the header is checked before it is used, and
//! before llama.cpp reads the state, its cells must match the header's rows.

mod check;
mod format;
mod rejected;

#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use format::fuzz_saved_session;

use super::Session;
use crate::chat::cache::Cache;
use crate::chat::cache::checkpoints::Checkpoint;
use crate::chat::cache::ledger::Evicted;
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::prompt;
use crate::error::{Error, Result};
use format::{Header, Parts, SavedCheckpoint, SavedEvicted, SavedSlice, SavedVideo};
use rejected::Rejected;
use std::path::Path;
use std::sync::Arc;

impl Session {
    /// Writes the session to a file, for [`load`](Self::load): the conversation, the embeddings of the kept visual
    /// tokens, and the KV cache with its evictions. Replaces a saved session atomically; does not replace any other
    /// file.
    ///
    /// The file holds the messages, and what the model saw of the videos, unencrypted. On Unix, other users cannot read
    /// it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::Unusable`] if the path is another file; [`Error::Llama`]
    /// if the KV cache cannot be copied. The file at the path then stays as it was.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        format::check_target(path)?;
        // Drop the rows of videos that are no longer in the conversation.
        self.cache.drop_other_videos(&self.conversation.videos, &mut self.learned);
        let (n_ctx, state) = self.cache.state()?.unwrap_or_default();
        let checkpoints = if state.is_empty() { &[] } else { self.cache.checkpoints() };
        let header = self.header(n_ctx, state.len() as u64, checkpoints)?;
        let header = serde_json::to_vec(&header).map_err(|e| Error::io("saving the session", path)(e.into()))?;
        format::write(path, &header, &self.conversation.videos, &state, checkpoints)
            .map_err(Error::io("saving the session", path))
    }

    /// Replaces this session's conversation with the one that [`save`](Self::save) wrote to a file, including its
    /// videos, which are not read, encoded or prefilled again. The system message comes from the file; all other
    /// parameters stay.
    ///
    /// A forged file does no harm: it is rejected, or loads as a conversation with forged messages.
    ///
    /// This session must have the same model, mmproj, adapters and KV types as the saved one, and eviction must be on
    /// in both or off in both.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Unusable`] if it is not a saved session, is truncated or
    /// damaged, has another version, or does not match this session; [`Error::Llama`] if memory does not hold its KV
    /// cache in addition to that of this session.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let (engine, params) = (&self.engine, &self.params);
        let rejected = |rejected: Rejected| rejected.at(path);
        let (header, parts) = format::read(path)?;
        let Parts { embeddings, state, checkpoints } = parts;
        check::check_fits(&check::fits(engine, params)?, &header.fits).map_err(rejected)?;
        let contents = check::contents(engine, params, header, &embeddings, checkpoints, !state.is_empty());
        let (mut conversation, mut cache, learned) = contents.map_err(rejected)?;
        drop(embeddings);
        // Check that the marks match the frames and their sizes.
        let question = conversation.user_message(engine.layout.as_ref(), "");
        prompt::plan(engine, &conversation, &question, &params.prompt())
            .map_err(|error| Rejected::because(format!("its conversation cannot be used: {error}")).at(path))?;
        cache.n_ctx = check::cells(params, &cache).map_err(rejected)?;
        let cache = Cache::restore(engine, &params.cache(), cache, &state)?
            .map_err(|reason| Rejected::because(format!("its KV cache cannot be restored: {reason}")).at(path))?;
        conversation.answer_start.clone_from(&self.conversation.answer_start);
        (self.conversation, self.cache, self.learned) = (conversation, cache, learned);
        Ok(())
    }

    fn header(&self, n_ctx: usize, state_bytes: u64, checkpoints: &[Checkpoint]) -> Result<Header> {
        let slice = |s: &EncodedSlice| SavedSlice {
            times_s: s.times_s.clone(),
            n_tokens: s.n_tokens,
            kept: s.kept.clone(),
            computed: s.computed,
        };
        let video = |v: &Arc<EncodedVideo>| SavedVideo {
            info: v.info.clone(),
            arrangement: v.arrangement.clone(),
            slices: v.slices.iter().map(slice).collect(),
        };
        let (conversation, learned) = (&self.conversation, &self.learned);
        // Without a state the cache is empty, and nothing was evicted from it.
        let entries = if state_bytes > 0 { self.cache.entries() } else { &[] };
        let evicted = entries.iter().enumerate().filter(|(_, entry)| entry.evicted == Evicted::FromAll);
        let floats: usize = conversation.videos.iter().flat_map(|v| &v.slices).map(|s| s.rows.len()).sum();
        Ok(Header {
            fits: check::fits(&self.engine, &self.params)?,
            marks: conversation.marks.prefix().to_owned(),
            system: conversation.system.clone(),
            messages: conversation.messages.clone(),
            videos: conversation.videos.iter().map(video).collect(),
            videos_sent: conversation.videos_sent,
            evicted: SavedEvicted {
                mode: self.params.evict_mode(),
                rows: evicted.map(|(index, _)| index).collect(),
                pending: self.cache.tail().cloned().filter(|_| state_bytes > 0),
                similarity: learned.similarity.layers.iter().map(|&s| Some(s).filter(|s| s.is_finite())).collect(),
                n_measured: learned.similarity.n_tokens,
                calibrated: learned.choice.clone(),
            },
            cached: entries.iter().filter_map(|entry| entry.row(&conversation.videos)).collect(),
            dense_rows: u32::try_from(self.cache.dense_rows()).unwrap_or(u32::MAX),
            n_ctx,
            embeddings_bytes: 4 * floats as u64,
            state_bytes,
            checkpoints: checkpoints.iter().map(SavedCheckpoint::of).collect(),
        })
    }
}
