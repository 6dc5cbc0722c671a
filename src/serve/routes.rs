//! What can be asked for, and how a chat request goes through.

use super::api::error::ApiError;
use super::api::response::{Head, json_response, now};
use super::cache::VideoCache;
use super::gate::Gate;
use super::guard::{Key, check_host, check_key};
use super::job::{Control, Event, Job, Why};
use super::media::{MediaLimits, Place, Sources};
use super::metrics::{Metrics, Now};
use super::prepare::{Base, Draft, Prepared};
use super::queue::Queue;
use super::stream;
use super::upload::Uploads;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};

/// What fails within this time has its own status, in a stream as well.
const STATUS_WAIT: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    pub base: Base,
    /// The model for the list of models.
    pub model: Value,
    pub sources: Arc<Sources>,
    pub queue: Arc<Queue>,
    pub cache: Arc<VideoCache>,
    pub metrics: Arc<Metrics>,
    pub max_body: u64,
    pub timeout: Duration,
    pub uploads: Arc<Uploads>,
    /// Requests whose media are fetched from other servers.
    pub fetching: Gate,
    /// Requests whose media are files of this machine.
    pub reading: Gate,
    pub next_id: AtomicU64,
    /// What the ids of this process begin with.
    pub id_prefix: String,
}

/// Who is let in.
pub(super) struct Door {
    pub key: Option<Key>,
    pub hosts: Vec<String>,
    pub cors: Option<CorsLayer>,
}

/// All routes.
pub(super) fn router(app: Arc<App>, door: Door) -> Router {
    let guarded = Router::new()
        .route("/v1/chat/completions", or_wrong_method(post(chat), "POST"))
        .route("/v1/models", or_wrong_method(get(models), "GET"))
        .route("/v1/models/{*id}", or_wrong_method(get(model), "GET"))
        .route("/metrics", or_wrong_method(get(metrics), "GET"))
        .fallback(async || ApiError::no_route())
        .layer(from_fn_with_state(door.key, check_key));
    let health = Router::new().route("/health", or_wrong_method(get(health), "GET"));
    let all = health.merge(guarded).with_state(Arc::clone(&app));
    // The last layer is the outermost one. Preflights carry no key.
    let all = match door.cors {
        Some(cors) => all.layer(cors),
        None => all,
    };
    let ids = Ids(Arc::clone(&app));
    all.layer(from_fn_with_state(Arc::new(door.hosts), check_host))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(app, count))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(ids))
        .layer(from_fn(forget_sent_id))
}

/// A route that says which method it takes to those that use another. The header Allow says so, too: axum writes it.
fn or_wrong_method(route: MethodRouter<Arc<App>>, method: &'static str) -> MethodRouter<Arc<App>> {
    route.fallback(move || async move { ApiError::wrong_method(method) })
}

/// Names requests for the log.
#[derive(Clone)]
struct Ids(Arc<App>);

impl MakeRequestId for Ids {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.0.new_id("req")).ok().map(RequestId::new)
    }
}

/// A name that a client chose would stand in the log.
async fn forget_sent_id(mut request: Request, next: Next) -> Response {
    request.headers_mut().remove("x-request-id");
    next.run(request).await
}

/// Counts answers, and logs them: never a body, a header or a query.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = route_name(request.uri().path());
    let method = request.method().clone();
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.request(route, status);
    tracing::info!(target: super::LOG, "{id} {method} {route} {status} {} ms", start.elapsed().as_millis());
    response
}

fn route_name(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" => "/v1/chat/completions",
        "/health" => "/health",
        "/metrics" => "/metrics",
        path if path.starts_with("/v1/models") => "/v1/models",
        _ => "other",
    }
}

async fn health() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [app.model] }))
}

async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    if id == app.base.model_id {
        json_response(StatusCode::OK, &app.model)
    } else {
        ApiError::no_model(&app.base.model_id).into_response()
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (processing, waiting) = app.queue.counts();
    let (cache_videos, cache_bytes) = app.cache.size();
    let text = app.metrics.text(Now { processing, waiting, cache_videos, cache_bytes });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    check_headers(&app, request.headers())?;
    let body = app.uploads.receive(request.into_body()).await?;
    // From here on it is this server that takes the time.
    let deadline = Instant::now() + app.timeout;
    let mut ticket = Ticket::new(&app);
    app.queue.check_room()?;
    let limits = MediaLimits::new(app.max_body, ticket.control.given_up());
    let memory = in_time(&app, deadline, app.uploads.memory(&body)).await?;
    let shared = Arc::clone(&app);
    let read = in_background(move || {
        let _memory = memory;
        Draft::read(&body.into_bytes()?, &shared.base, limits)
    });
    let draft = in_time(&app, deadline, read).await?;
    // Who names nothing of others waits for nobody.
    let gate = match draft.farthest() {
        Place::Here => None,
        Place::ThisMachine => Some(&app.reading),
        Place::Elsewhere => Some(&app.fetching),
    };
    let permit = match gate {
        Some(gate) => Some(in_time(&app, deadline, gate.enter()).await?),
        None => None,
    };
    let shared = Arc::clone(&app);
    let fetch = in_background(move || {
        let _permit = permit;
        draft.fetch(&shared.sources)
    });
    let prepared = in_time(&app, deadline, fetch).await?;
    let (stream, include_usage) = (prepared.ask.stream, prepared.ask.include_usage);
    let head = Head::new(app.new_id("chatcmpl"), app.base.model_id.clone(), stream && include_usage);
    let mut events = ticket.submit(prepared)?;
    if stream {
        let first = match timeout_at(deadline.min(Instant::now() + STATUS_WAIT), events.recv()).await {
            Ok(Some(Event::Failed(error))) => return Err(ticket.failed(&error)),
            Ok(Some(event)) => Some(event),
            Ok(None) => return Err(ApiError::internal()),
            // In line still, or a long way to the first token.
            Err(_) => None,
        };
        return Ok(stream::respond(head, first, events, ticket, deadline));
    }
    let mut text = String::new();
    loop {
        match timeout_at(deadline, events.recv()).await {
            Ok(Some(Event::Begun)) => {}
            Ok(Some(Event::Text(piece))) => text.push_str(&piece),
            Ok(Some(Event::Done(end))) => {
                ticket.done();
                return Ok(json_response(StatusCode::OK, &head.whole(&text, &end)));
            }
            Ok(Some(Event::Failed(error))) => return Err(ticket.failed(&error)),
            Ok(None) => return Err(ApiError::internal()),
            Err(_) => {
                ticket.cancel(Why::Timeout);
                return Err(ticket.failed(&ApiError::timeout(app.timeout)));
            }
        }
    }
}

/// What can be told without the body.
fn check_headers(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // A web page can send other types without asking first.
    let kind = text(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::not_json());
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > app.max_body) {
        return Err(ApiError::too_large("the request", app.max_body));
    }
    Ok(())
}

/// What blocks, on a thread for such things.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())?
}

/// What has to be done by the time of the answer.
async fn in_time<T>(
    app: &App,
    deadline: Instant,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(ApiError::timeout(app.timeout)))
}

impl App {
    /// A new name for something.
    fn new_id(&self, kind: &str) -> String {
        format!("{kind}-{}{:08x}", self.id_prefix, self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// A prefix of ids that no other process has.
pub(super) fn id_prefix() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}{:08x}", now() as u32, RandomState::new().hash_one(0) as u32)
}

/// Somebody waits for an answer. Dropped before it is done, it gives the request up, wherever that is.
#[derive(Debug)]
pub(super) struct Ticket {
    app: Arc<App>,
    control: Arc<Control>,
    job: Option<Arc<Job>>,
    start: Instant,
    is_over: bool,
}

impl Ticket {
    fn new(app: &Arc<App>) -> Self {
        Self { app: Arc::clone(app), control: Arc::default(), job: None, start: Instant::now(), is_over: false }
    }

    fn submit(&mut self, prepared: Prepared) -> Result<UnboundedReceiver<Event>, ApiError> {
        let (sender, receiver) = unbounded_channel();
        let job = Arc::new(Job { prepared, control: Arc::clone(&self.control), events: sender });
        self.app.queue.submit(Arc::clone(&job))?;
        self.job = Some(job);
        Ok(receiver)
    }

    /// The answer is done.
    pub fn done(&mut self) {
        self.is_over = true;
        self.app.metrics.finished(self.start.elapsed());
    }

    /// It failed.
    pub fn failed(&mut self, error: &ApiError) -> ApiError {
        self.is_over = true;
        tracing::debug!(target: super::LOG, "a chat request failed with {}", error.status());
        error.clone()
    }

    /// Gives it up.
    pub fn cancel(&mut self, why: Why) {
        self.control.cancel(why);
        if let Some(job) = &self.job {
            self.app.queue.forget(job);
        }
        self.app.metrics.given_up(match why {
            Why::Gone => "gone",
            Why::Timeout => "timeout",
            Why::Shutdown => "shutdown",
        });
    }

    /// The most time that an answer may take.
    pub fn timeout(&self) -> Duration {
        self.app.timeout
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // One that failed before it was a job is over for its client, too; only its fetching may go on.
        if !self.is_over {
            self.control.cancel(Why::Gone);
            if self.job.is_some() {
                self.cancel(Why::Gone);
            }
        }
    }
}
