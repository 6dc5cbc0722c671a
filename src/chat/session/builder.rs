//! Opens a session, one setting at a time.

use super::Session;
use crate::chat::cache::evict::EvictParams;
use crate::chat::engine::Thinking;
use crate::chat::params::SessionParams;
use crate::error::Result;
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::prune::PruneParams;
use crate::runtime::{CancelToken, Model, SamplerParams};
use serde_json::{Map, Value};

/// Opens a [`Session`]: made by [`Session::builder`]. Settings default to [`SessionParams::default`].
#[must_use = "nothing is loaded before `open`"]
pub struct SessionBuilder<'a> {
    files: &'a ModelFiles,
    model: Option<Model>,
    params: SessionParams,
    observer: Option<&'a mut dyn Observer>,
}

impl Session {
    /// Returns a builder that opens a session with `files`, one setting at a time:
    ///
    /// ```no_run
    /// # let files = sharpv::models::resolve("smol", None, &[])?;
    /// let session = sharpv::Session::builder(&files).n_predict(64).system("Be brief.").open()?;
    /// # Ok::<(), sharpv::Error>(())
    /// ```
    pub fn builder(files: &ModelFiles) -> SessionBuilder<'_> {
        SessionBuilder { files, model: None, params: SessionParams::default(), observer: None }
    }
}

impl<'a> SessionBuilder<'a> {
    /// Sets all parameters at once, and replaces those set before.
    pub fn params(self, params: SessionParams) -> Self {
        Self { params, ..self }
    }

    /// Sets a language model that is loaded already, so that several sessions share its weights. The model file of
    /// [`builder`](Session::builder) is then not read.
    pub fn model(self, model: Model) -> Self {
        Self { model: Some(model), ..self }
    }

    /// Sets which visual tokens to keep; [`PruneParams::off`] keeps all.
    pub fn prune(mut self, prune: PruneParams) -> Self {
        self.params.prune = prune;
        self
    }

    /// Sets which visual tokens to evict from the KV cache; [`EvictParams::off`] evicts none.
    pub fn evict(mut self, evict: EvictParams) -> Self {
        self.params.evict = evict;
        self
    }

    /// Sets how tokens are sampled.
    pub fn sampler(mut self, sampler: SamplerParams) -> Self {
        self.params.sampler = sampler;
        self
    }

    /// Sets the maximum number of tokens of an answer.
    pub fn n_predict(mut self, n_predict: usize) -> Self {
        self.params.n_predict = n_predict;
        self
    }

    /// Sets whether the model thinks before it answers.
    pub fn thinking(mut self, thinking: Thinking) -> Self {
        self.params.thinking = thinking;
        self
    }

    /// Sets what the chat template is told besides: see [`SessionParams::template_kwargs`].
    pub fn template_kwargs(mut self, kwargs: Map<String, Value>) -> Self {
        self.params.template_kwargs = kwargs;
        self
    }

    /// Fixes the number of cells of the KV cache. Without it, the cache grows with the conversation.
    pub fn n_ctx(mut self, n_ctx: usize) -> Self {
        self.params.n_ctx = Some(n_ctx);
        self
    }

    /// Sets the number of threads, for the language model and the vision encoder. Without it, one for each core.
    pub fn threads(mut self, n_threads: usize) -> Self {
        self.params.compute.n_threads = Some(n_threads);
        self.params.vision.n_threads = Some(n_threads);
        self
    }

    /// Sets the system message.
    pub fn system(mut self, system: impl Into<String>) -> Self {
        self.params.system = Some(system.into());
        self
    }

    /// Sets the token that cancels the session's work.
    pub fn cancel(mut self, cancel: CancelToken) -> Self {
        self.params.cancel = cancel;
        self
    }

    /// Sets the observer that loading reports to.
    pub fn observer(self, observer: &'a mut dyn Observer) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Loads the model, its vision encoder and its adapters.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::NotGguf`](crate::Error::NotGguf),
    /// [`Error::BadModel`](crate::Error::BadModel) and [`Error::Load`](crate::Error::Load) for a file that cannot be
    /// used, [`Error::ChatTemplate`](crate::Error::ChatTemplate), and
    /// [`Error::InvalidParameter`](crate::Error::InvalidParameter) for a parameter out of range.
    pub fn open(self) -> Result<Session> {
        let Self { files, model, params, observer } = self;
        Session::load_with(model, files, params, observer.unwrap_or(&mut ()))
    }
}

impl std::fmt::Debug for SessionBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionBuilder")
            .field("files", self.files)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
