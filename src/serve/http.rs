//! Routes: what is asked and answered over HTTP.

use super::batcher::{Queue, Refused};
use super::{Options, input, metrics, metrics::Metrics};
use crate::error::{Error, Result};
use crate::infer::{page, probabilities, top};
use crate::model::Model;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Query, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What every request sees.
pub(super) struct State {
    pub model: Model,
    pub classes: Vec<String>,
    pub device: String,
    pub max_batch: usize,
    pub options: Options,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
}

const PREDICT: &str = "/v1/predict";
/// Paths that are counted by name; the rest counts together.
const PATHS: [&str; 5] = ["/", PREDICT, "/v1/model", "/healthz", "/metrics"];
/// Seconds after which a request that found the queue full may come again.
const RETRY_AFTER: &str = "1";

/// Serves until `stop` resolves and what was begun is done, at most `drain` later.
pub(super) async fn run(
    listener: TcpListener,
    state: Arc<State>,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> Result<()> {
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    let stop = async move {
        stop.await;
        log::info!("taking no more requests");
        told.notify_one();
    };
    let serving = axum::serve(listener, router(state)).with_graceful_shutdown(stop);
    let late = async move {
        stopping.notified().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(|e| Error::Runtime(format!("serving: {e}"))),
        () = late => {
            log::warn!("some requests were not done {drain:?} after the end was asked for");
            Ok(())
        }
    }
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(home))
        .route(PREDICT, post(predict))
        .route("/v1/model", get(model))
        .route("/healthz", get(health))
        .route("/metrics", get(report))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(state.options.max_body))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

/// An answer that is no success: a status, and what is wrong.
struct Failure {
    status: StatusCode,
    problem: String,
}

fn failure(status: StatusCode, problem: impl Into<String>) -> Failure {
    Failure {
        status,
        problem: problem.into(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let answer = (self.status, as_json(&json!({"error": self.problem})));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                ([(header::RETRY_AFTER, RETRY_AFTER)], answer).into_response()
            }
            _ => answer.into_response(),
        }
    }
}

fn as_json(value: &Value) -> impl IntoResponse + use<> {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string() + "\n",
    )
}

async fn count(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let path = PATHS.into_iter().find(|p| *p == request.uri().path());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    state.metrics.request(path.unwrap_or("other"), status);
    response
}

async fn unknown(request: Request) -> Failure {
    let path = request.uri().path();
    failure(
        StatusCode::NOT_FOUND,
        format!("there is no {path}; there are {}", PATHS.join(", ")),
    )
}

async fn wrong_method(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    let takes = if path == PREDICT { "POST" } else { "GET" };
    let problem = format!("{path} takes {takes}, found {method}");
    failure(StatusCode::METHOD_NOT_ALLOWED, problem)
}

async fn home() -> Html<String> {
    Html(page::inline(include_str!("page.js")))
}

async fn health(Shared(state): Shared<Arc<State>>) -> std::result::Result<&'static str, Failure> {
    match state.queue.is_healthy() {
        true => Ok("ok\n"),
        false => Err(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "the device failed in the last batch; see the server's standard error",
        )),
    }
}

async fn report(Shared(state): Shared<Arc<State>>) -> std::result::Result<Response, Failure> {
    let text = state.metrics.text();
    let text = text.map_err(|e| failure(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}

async fn model(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    as_json(&json!({
        "name": state.model.name(),
        "input": state.model.input(),
        "classes": state.classes,
        "parameters": state.model.parameter_count(),
        "device": state.device,
        "max_batch": state.max_batch,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Classes told of an image.
    #[serde(default = "three")]
    top: usize,
}

fn three() -> usize {
    3
}

async fn predict(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> std::result::Result<Response, Failure> {
    let begin = Instant::now();
    let limit = state.options.timeout;
    let answered = tokio::time::timeout(limit, answer(&state, request)).await;
    let late = || {
        failure(
            StatusCode::REQUEST_TIMEOUT,
            format!("not done within {limit:?}"),
        )
    };
    let response = answered.map_err(|_| late())??;
    state.metrics.predicted(begin.elapsed());
    Ok(response)
}

async fn answer(state: &Arc<State>, request: Request) -> std::result::Result<Response, Failure> {
    let asked = Query::<Asked>::try_from_uri(request.uri())
        .map_err(|e| failure(StatusCode::BAD_REQUEST, e.body_text()))?;
    if asked.top == 0 {
        return Err(failure(
            StatusCode::BAD_REQUEST,
            "top must be at least 1, found 0",
        ));
    }
    let images = images(state, request).await?;
    // Dropped answers tell the device to leave their images alone.
    let mut answers = Vec::with_capacity(images.len());
    for pixels in images {
        answers.push(state.queue.push(pixels).map_err(|refused| match refused {
            Refused::Full => failure(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{} images wait already; come again later",
                    state.options.queue
                ),
            ),
            Refused::Stopped => failure(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
        })?);
    }
    let broken = |problem: String| failure(StatusCode::INTERNAL_SERVER_ERROR, problem);
    let mut predictions = Vec::with_capacity(answers.len());
    for answer in answers {
        let logits = answer
            .await
            .map_err(|_| broken("the device's thread ended".into()))?;
        let probabilities = probabilities(&logits.map_err(broken)?);
        let likeliest: Vec<Value> = top(&probabilities, asked.top)
            .into_iter()
            .map(|c| json!({"class": state.classes[c], "probability": probabilities[c]}))
            .collect();
        predictions.push(json!({"top": likeliest}));
    }
    Ok(as_json(&json!({"predictions": predictions})).into_response())
}

/// The images of a request, as bytes [C, H, W].
async fn images(
    state: &Arc<State>,
    request: Request,
) -> std::result::Result<Vec<Vec<u8>>, Failure> {
    let (parts, body) = request.into_parts();
    let kind = media_type(&parts.headers);
    let whole = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(whole, &()).await.map_err(|rejected| {
        let limit = state.options.max_body;
        match rejected.status() {
            StatusCode::PAYLOAD_TOO_LARGE => failure(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {limit} bytes, the server's limit"),
            ),
            status => failure(status, rejected.body_text()),
        }
    })?;
    let shape = state.model.input();
    let images = match kind.as_str() {
        "multipart/form-data" => {
            let files = files(Request::from_parts(parts, Body::from(body))).await?;
            blocking(move || {
                let decode = |(name, bytes): &(String, Bytes)| input::file(name, bytes, shape);
                files.iter().map(decode).collect()
            })
            .await?
        }
        "application/json" => blocking(move || input::json(&body, shape)).await?,
        "" | "application/octet-stream" | "image/png" | "image/jpeg" => {
            blocking(move || Ok(vec![input::file("body", &body, shape)?])).await?
        }
        other => {
            let problem = format!(
                "content-type: expected image/png, image/jpeg, multipart/form-data or \
                 application/json, found {other}"
            );
            return Err(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
        }
    };
    let (found, limit) = (images.len(), state.options.queue);
    if found > limit {
        let problem = format!("at most {limit} images a request, found {found}");
        return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, problem));
    }
    Ok(images)
}

/// The media type without parameters, in lower case; empty where none is stated.
fn media_type(headers: &HeaderMap) -> String {
    let stated = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let kind = stated
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The files of a form, with their names.
async fn files(request: Request) -> std::result::Result<Vec<(String, Bytes)>, Failure> {
    let bad = |problem: String| failure(StatusCode::BAD_REQUEST, format!("form: {problem}"));
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|e| bad(e.body_text()))?;
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|e| bad(e.body_text()))? {
        let name = field
            .file_name()
            .or(field.name())
            .unwrap_or("file")
            .to_owned();
        files.push((name, field.bytes().await.map_err(|e| bad(e.body_text()))?));
    }
    if files.is_empty() {
        return Err(bad("expected one or more files, found none".into()));
    }
    Ok(files)
}

/// Decodes off the threads that answer requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> std::result::Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(found) => Ok(found?),
        Err(error) => Err(failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}
