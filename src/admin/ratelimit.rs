//! `/ratelimit/POLICY/SUBJECT[?cost=N&id=X]`: 200 if the call is admitted, 429 if it is refused.
//!
//! Any method will do: Envoy sends the original one. A proxy names the subject in the header `X-RateLimit-Subject` (and cost
//! and id in `X-RateLimit-Cost` and `X-RateLimit-Id`); then what follows the policy in the path is the client's own, as
//! Envoy appends it, and neither it nor its query counts. `X-RateLimit-Refused-Status: 403` has refusals answered with 403,
//! as nginx's `auth_request` wants them.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::check::{Answer, Checkers, Failure};
use super::routes::apart;
use crate::config::RatePolicy;

/// A longer subject is refused.
const MAX_SUBJECT: usize = 1024;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    policy: Vec<u8>,
    subject: Vec<u8>,
    cost: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

/// Checks.
pub(super) async fn check(State(checkers): State<Checkers>, request: Request) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let question = match question(uri.path(), uri.query().unwrap_or_default(), headers) {
        Ok(question) => question,
        Err(reason) => return (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    };
    let refused = match headers.get("x-ratelimit-refused-status").map(HeaderValue::as_bytes) {
        None | Some(b"429") => StatusCode::TOO_MANY_REQUESTS,
        Some(b"403") => StatusCode::FORBIDDEN,
        Some(_) => {
            return (StatusCode::BAD_REQUEST, "X-RateLimit-Refused-Status must be 403 or 429\n")
                .into_response();
        }
    };
    let known = checkers.instance.limits.with_policy(&question.policy, |active| active.policy.clone());
    let Some(policy) = known else {
        return (StatusCode::NOT_FOUND, "no such rate limit policy\n").into_response();
    };
    let answered = apart(move || {
        let (cost, id) = (question.cost.as_deref(), question.id.as_deref());
        let answer = checkers.check(&question.policy, &question.subject, cost, id);
        (answer, String::from_utf8_lossy(&question.policy).into_owned())
    });
    match answered.await {
        Ok((Ok(answer), name)) => respond(&name, &policy, &answer, refused),
        Ok((Err(Failure::Busy), _)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the server is paused\n").into_response()
        }
        Ok((Err(Failure::Refused(reason)), _)) => {
            let status = match reason.split(' ').next() {
                Some("OOM" | "UPSTREAMDOWN") => StatusCode::SERVICE_UNAVAILABLE,
                Some("WRONGTYPE") => StatusCode::CONFLICT,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, format!("{reason}\n")).into_response()
        }
        Err(failed) => failed.into_response(),
    }
}

fn question(path: &str, query: &str, headers: &HeaderMap) -> Result<Question, &'static str> {
    let rest = path.strip_prefix("/ratelimit/").unwrap_or_default();
    let (policy, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let policy = decode(policy).ok_or("the policy is badly encoded")?;
    let header = |name: &str| headers.get(name).map(|value| value.as_bytes().to_vec());
    let (subject, cost, id) = match header("x-ratelimit-subject") {
        Some(subject) => (subject, header("x-ratelimit-cost"), header("x-ratelimit-id")),
        None => {
            let subject = decode(rest).ok_or("the subject is badly encoded")?;
            let (mut cost, mut id) = (None, None);
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let value = decode(value).ok_or("the query is badly encoded")?;
                match name {
                    "cost" => cost = Some(value),
                    "id" => id = Some(value),
                    _ => return Err("the query may hold cost and id"),
                }
            }
            (subject, cost, id)
        }
    };
    if subject.is_empty() {
        return Err("the subject is missing");
    }
    if subject.len() > MAX_SUBJECT {
        return Err("the subject is too long");
    }
    Ok(Question { policy, subject, cost, id })
}

/// Undoes percent-encoding; `None` where it is none.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (char::from(bytes.next()?), char::from(bytes.next()?));
                (high.to_digit(16)? * 16 + low.to_digit(16)?) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

fn respond(name: &str, policy: &RatePolicy, answer: &Answer, refused: StatusCode) -> Response {
    let status = if answer.limited { refused } else { StatusCode::OK };
    let body = serde_json::json!({
        "limited": answer.limited,
        "limit": answer.limit,
        "remaining": answer.remaining,
        "retry_after_ms": answer.retry_after,
        "reset_after_ms": answer.reset_after,
    });
    let mut headers =
        vec![("content-type", "application/json".to_owned()), ("cache-control", "no-store".to_owned())];
    headers.extend(limit_headers(name, policy, answer));
    let mut response = (status, format!("{body}\n")).into_response();
    for (header, value) in headers {
        match HeaderValue::try_from(value) {
            Ok(value) => drop(response.headers_mut().insert(header, value)),
            Err(error) => tracing::error!(%error, header, "a header cannot be sent"),
        }
    }
    response
}

/// The headers of draft-ietf-httpapi-ratelimit-headers, and the older ones. Times are seconds from now, rounded up.
fn limit_headers(name: &str, policy: &RatePolicy, answer: &Answer) -> Vec<(&'static str, String)> {
    let rules = &policy.rules;
    // Each window of a policy has a name of its own: a list must not hold one twice.
    let name_of = |index: usize| {
        if rules.len() == 1 { name.to_owned() } else { format!("{name}-{}", index + 1) }
    };
    let policies = rules.iter().enumerate().map(|(index, rule)| {
        let mut item = format!("\"{}\";q={}", name_of(index), rule.limit);
        // A window is told in whole seconds or not at all.
        if rule.window_us % 1_000_000 == 0 {
            item.push_str(&format!(";w={}", rule.window_us / 1_000_000));
        }
        item
    });
    let policies: Vec<String> = policies.collect();
    let decisive = rules.iter().position(|rule| rule.capacity as i64 == answer.limit).unwrap_or(0);
    let seconds = |millis: i64| (millis.max(0) as u64).div_ceil(1000);
    let reset = seconds(answer.reset_after);
    let mut headers = vec![
        ("ratelimit-policy", policies.join(", ")),
        ("ratelimit", format!("\"{}\";r={};t={reset}", name_of(decisive), answer.remaining)),
        ("x-ratelimit-limit", answer.limit.to_string()),
        ("x-ratelimit-remaining", answer.remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
    ];
    if answer.limited && answer.retry_after >= 0 {
        headers.push(("retry-after", seconds(answer.retry_after).to_string()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Algorithm, Rule};

    fn asked(
        path: &str,
        query: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Question, &'static str> {
        let headers = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))
        });
        question(path, query, &headers.collect())
    }

    #[test]
    fn subjects_are_decoded_and_bad_ones_refused() {
        let plain = asked("/ratelimit/api/a%2Fb%20c/d", "cost=2&id=x%26y", &[]).unwrap();
        assert_eq!((plain.policy, plain.subject), (b"api".to_vec(), b"a/b c/d".to_vec()));
        assert_eq!((plain.cost, plain.id), (Some(b"2".to_vec()), Some(b"x&y".to_vec())));
        for path in [
            "/ratelimit/api",
            "/ratelimit/api/",
            "/ratelimit/api/%",
            "/ratelimit/api/%4",
            "/ratelimit/api/%zz",
            "/ratelimit/%x/y",
        ] {
            assert!(asked(path, "", &[]).is_err(), "{path}");
        }
        assert!(asked(&format!("/ratelimit/api/{}", "x".repeat(1025)), "", &[]).is_err());
        assert!(asked("/ratelimit/api/x", "cots=0", &[]).is_err());
    }

    #[test]
    fn with_a_header_nothing_of_the_client_counts() {
        let question =
            asked("/ratelimit/api/shop/%zz", "cost=0&id=same", &[("x-ratelimit-subject", "10.0.0.1")]);
        let expected =
            Question { policy: b"api".to_vec(), subject: b"10.0.0.1".to_vec(), cost: None, id: None };
        assert_eq!(question, Ok(expected));
        assert!(asked("/ratelimit/api/x", "", &[("x-ratelimit-subject", "")]).is_err());
    }

    #[test]
    fn headers_name_the_window_that_decided() {
        let rule = |limit, millis| Rule::new(Algorithm::Log, limit, millis, None).unwrap();
        let policy = RatePolicy {
            algorithm: Algorithm::Log,
            rules: [rule(10, 1500), rule(1000, 900_000)].into_iter().collect(),
        };
        let answer =
            Answer { limited: true, limit: 1000, remaining: 0, retry_after: 1001, reset_after: 899_001 };
        let headers = limit_headers("api", &policy, &answer);
        let expected = [
            ("ratelimit-policy", "\"api-1\";q=10, \"api-2\";q=1000;w=900"),
            ("ratelimit", "\"api-2\";r=0;t=900"),
            ("x-ratelimit-limit", "1000"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "900"),
            ("retry-after", "2"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
        let never = Answer { retry_after: -1, ..answer };
        assert!(limit_headers("api", &policy, &never).iter().all(|(name, _)| *name != "retry-after"));
    }
}
