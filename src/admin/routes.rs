//! The routes, and who may take them.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine;

use super::check::Checkers;
use super::figures::Figures;
use super::{metrics, performance, ratelimit};
use crate::config::Secret;
use crate::instance::Instance;

/// What Prometheus wants to be told of its text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page loads nothing from elsewhere, and shows names that clients made up.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// All routes. Health is open to everybody.
pub(super) fn router(instance: &'static Instance) -> Router {
    let checkers = Checkers::new(instance);
    let closed = Router::new()
        .route("/", get(page))
        .route("/metrics", get(show_metrics))
        .route("/admin/performance", get(show_performance))
        .with_state(instance)
        .route("/ratelimit/{*rest}", any(ratelimit::check).with_state(checkers))
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(middleware::from_fn_with_state(instance, authorize));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(instance)
        .merge(closed)
}

async fn ready(State(instance): State<&'static Instance>) -> (StatusCode, &'static str) {
    if instance.is_ready() {
        (StatusCode::OK, "ready\n")
    } else if instance.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(include_str!("page.html")))
}

async fn show_metrics(State(instance): State<&'static Instance>) -> Response {
    let text = apart(move || metrics::render(&Figures::gather(instance))).await;
    text.map(|text| ([(header::CONTENT_TYPE, METRICS)], text)).into_response()
}

async fn show_performance(State(instance): State<&'static Instance>) -> Response {
    let text = apart(move || performance::report(&Figures::gather(instance)).to_string()).await;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    text.map(|text| (headers, text)).into_response()
}

/// Runs what may wait for locks where nothing else waits for it.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, (StatusCode, &'static str)> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request to the admin server failed");
        (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
    })
}

async fn authorize(State(instance): State<&'static Instance>, request: Request, next: Next) -> Response {
    match &instance.config.admin.token {
        Some(token) if !brings(request.headers(), token) => {
            let ways = [
                (header::WWW_AUTHENTICATE, "Bearer realm=\"anteroom\""),
                (header::WWW_AUTHENTICATE, "Basic realm=\"anteroom\""),
            ];
            let mut response = (StatusCode::UNAUTHORIZED, "a token is needed\n").into_response();
            for (name, way) in ways {
                response.headers_mut().append(name, header::HeaderValue::from_static(way));
            }
            response
        }
        _ => next.run(request).await,
    }
}

/// Whether a request brings the token: as a bearer, or as the password of a user, which is what browsers ask for.
fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION) else { return false };
    let Some((scheme, credentials)) = given.to_str().ok().and_then(|given| given.split_once(' ')) else {
        return false;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return token.is(credentials.trim().as_bytes());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim()).unwrap_or_default();
    let colon = decoded.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| token.is(&decoded[colon + 1..]))
}
