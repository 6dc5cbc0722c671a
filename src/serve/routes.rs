//! The routes, and the way of a chat request through the server.

use super::api::error::ApiError;
use super::api::response::{Head, json_response, now};
use super::cache::VideoCache;
use super::gate::Gate;
use super::guard::{Key, check_host, check_key};
use super::job::{Event, Task};
use super::media::{Location, MediaLimits, Sources};
use super::metrics::{Metrics, Now};
use super::prepare::{Base, Draft};
use super::queue::Queue;
use super::stream;
use super::ticket::Ticket;
use super::upload::{Received, Uploads};
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
use tokio::time::{Instant, timeout_at};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};

/// An error within this time gets a status of its own, even if the answer is to be a stream.
const STATUS_WAIT: Duration = Duration::from_secs(10);

/// What the requests share.
#[derive(Debug)]
pub(super) struct App {
    pub base: Base,
    /// The entry of `/v1/models`.
    pub model: Value,
    pub sources: Arc<Sources>,
    pub queue: Arc<Queue>,
    pub cache: Arc<VideoCache>,
    pub metrics: Arc<Metrics>,
    pub max_body: u64,
    pub timeout: Duration,
    pub uploads: Arc<Uploads>,
    /// For requests with media of other servers.
    pub fetching: Gate,
    /// For requests with files of this machine.
    pub reading: Gate,
    pub next_id: AtomicU64,
    /// The prefix of ids of this process.
    pub id_prefix: String,
}

/// Which requests are let in.
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
    // The last layer is the outermost. CORS is outside the key, because preflight requests carry no key.
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

/// Answers other methods with an error in JSON. axum adds the header `Allow`.
fn or_wrong_method(route: MethodRouter<Arc<App>>, method: &'static str) -> MethodRouter<Arc<App>> {
    route.fallback(move || async move { ApiError::wrong_method(method) })
}

/// Gives requests an id for the log.
#[derive(Clone)]
struct Ids(Arc<App>);

impl MakeRequestId for Ids {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.0.new_id("req")).ok().map(RequestId::new)
    }
}

/// Removes an id that the client chose, which would get into the log.
async fn forget_sent_id(mut request: Request, next: Next) -> Response {
    request.headers_mut().remove("x-request-id");
    next.run(request).await
}

/// Counts and logs answers. The log has no bodies, headers or queries.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = route_name(request.uri().path());
    let method = request.method().clone();
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics.request(route, status);
    tracing::info!("{id} {method} {route} {status} {} ms", start.elapsed().as_millis());
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
    // The time limit counts from here: until now the client took the time.
    let mut ticket = Ticket::new(&app.queue, &app.metrics, app.timeout);
    let task = timeout_at(ticket.deadline(), prepare(&app, &ticket, body)).await;
    let task = task.unwrap_or_else(|_| Err(ticket.too_late()))?;
    let (stream, include_usage) = (task.answer.stream, task.answer.include_usage);
    let head = Head::new(app.new_id("chatcmpl"), app.base.model_id.clone(), stream && include_usage);
    let mut events = ticket.submit(task)?;
    if stream {
        let first = match timeout_at(ticket.deadline().min(Instant::now() + STATUS_WAIT), events.recv()).await {
            Ok(Some(Event::Failed(error))) => return Err(ticket.failed(error)),
            Ok(Some(event)) => Some(event),
            Ok(None) => return Err(ApiError::internal()),
            // It still waits for a slot, or for its first token.
            Err(_) => None,
        };
        return Ok(stream::respond(head, first, events, ticket));
    }
    let (mut thought, mut text) = (String::new(), String::new());
    loop {
        match timeout_at(ticket.deadline(), events.recv()).await {
            Ok(Some(Event::Begun)) => {}
            Ok(Some(Event::Thought(piece))) => thought.push_str(&piece),
            Ok(Some(Event::Text(piece))) => text.push_str(&piece),
            Ok(Some(Event::Done(end))) => {
                ticket.done();
                return Ok(json_response(StatusCode::OK, &head.whole(&thought, &text, &end)));
            }
            Ok(Some(Event::Failed(error))) => return Err(ticket.failed(error)),
            Ok(None) => return Err(ApiError::internal()),
            Err(_) => return Err(ticket.timed_out()),
        }
    }
}

/// Makes a task of a body.
async fn prepare(app: &Arc<App>, ticket: &Ticket, body: Received) -> Result<Task, ApiError> {
    app.queue.check_capacity()?;
    let limits = MediaLimits::new(app.max_body, ticket.cancellation());
    let memory = app.uploads.memory(&body).await?;
    let shared = Arc::clone(app);
    let draft = in_background(move || {
        let _memory = memory;
        Draft::read(&body.into_bytes()?, &shared.base, limits)
    });
    let draft = draft.await?;
    let permit = match draft.location() {
        Location::Request => None,
        Location::ThisMachine => Some(app.reading.enter().await?),
        Location::Network => Some(app.fetching.enter().await?),
    };
    let shared = Arc::clone(app);
    let fetch = in_background(move || {
        let _permit = permit;
        draft.fetch(&shared.sources)
    });
    fetch.await
}

/// Checks what can be checked before the body arrives.
fn check_headers(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    // A web page could send another type without a preflight request.
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

/// Runs blocking work on a thread for it.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())?
}

impl App {
    /// A new id.
    fn new_id(&self, kind: &str) -> String {
        format!("{kind}-{}{:08x}", self.id_prefix, self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// A prefix that no other process uses.
pub(super) fn id_prefix() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}{:08x}", now() as u32, RandomState::new().hash_one(0) as u32)
}
