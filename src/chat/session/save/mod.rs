//! A session in a file: saved, and restored in another process.
//!
//! The checksum finds damage, not malice: every index and length of the header is checked as well before it is used,
//! and the cells of the state have to be those of the header's rows before llama.cpp reads it.

mod check;
mod format;
mod refused;

#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use format::fuzz_saved_session;

use super::Session;
use crate::chat::cache::Cache;
use crate::chat::cache::ledger::Evicted;
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::prompt;
use crate::error::{Error, Result};
use format::{Header, SavedEvicted, SavedSlice, SavedVideo};
use refused::Refused;
use std::path::Path;
use std::sync::Arc;

impl Session {
    /// Writes the session to a file, for [`load`](Self::load): the conversation, the embeddings of the kept visual
    /// tokens, and the KV cache as it is, with what was evicted from it. A file from an earlier call is replaced, in
    /// one step when all is written; any other is left alone.
    ///
    /// The file holds what was said, and what the model saw of the videos, in the clear; on Unix no other user can read
    /// it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::Unusable`] if something else is there; [`Error::Llama`] if
    /// the KV cache cannot be copied. What was there before is then still there.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        format::check_target(path)?;
        // Rows of videos that the conversation is not about any more.
        self.cache.drop_other_videos(&self.conversation.videos, &mut self.learned);
        let (n_ctx, state) = self.cache.state()?.unwrap_or_default();
        let header = self.header(n_ctx, state.len() as u64)?;
        let header = serde_json::to_vec(&header).map_err(|e| Error::io("saving the session", path)(e.into()))?;
        format::write(path, &header, &self.conversation.videos, &state).map_err(Error::io("saving the session", path))
    }

    /// Goes on with the session that [`save`](Self::save) wrote to a file, in the place of this one's conversation:
    /// with the same videos, without reading, encoding or prefilling them again. The system message is that of the
    /// file; all other parameters stay.
    ///
    /// A file that somebody forged does no harm: it is refused, or it is a conversation with other answers than there
    /// were.
    ///
    /// This session must have been opened with the same model, mmproj and adapters, the same KV types, and eviction
    /// likewise on or off.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Unusable`] if it is no saved session, cut short, damaged, of
    /// another version, or does not fit this session; [`Error::Llama`] if there is no memory for its KV cache beside
    /// that of this session.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let (engine, params) = (&self.engine, &self.params);
        let refused = |refused: Refused| refused.at(path);
        let (header, embeddings, state) = format::read(path)?;
        check::check_fits(&check::fits(engine, params)?, &header.fits).map_err(refused)?;
        let contents = check::contents(engine, params, header, &embeddings, !state.is_empty());
        let (mut conversation, mut cache, learned) = contents.map_err(refused)?;
        drop(embeddings);
        // Marks, frames and their sizes have to go together.
        let question = conversation.user_message(engine.layout.as_ref(), "");
        prompt::plan(engine, &conversation, &question, params.tokenization)
            .map_err(|error| Refused::because(format!("its conversation cannot be used: {error}")).at(path))?;
        cache.n_ctx = check::cells(params, &cache).map_err(refused)?;
        let cache = Cache::restore(engine, &params.cache(), cache, &state)?
            .map_err(|reason| Refused::because(format!("its KV cache cannot be restored: {reason}")).at(path))?;
        conversation.answer_start.clone_from(&self.conversation.answer_start);
        (self.conversation, self.cache, self.learned) = (conversation, cache, learned);
        Ok(())
    }

    fn header(&self, n_ctx: usize, state_bytes: u64) -> Result<Header> {
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
        // Without a state there is nothing in the cache, and nothing that was evicted from it.
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
        })
    }
}
