//! Asks a Prometheus server for one number (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).
//!
//! What is not exactly one finite number is an error that says what it is: nothing is guessed, and no data is neither good
//! nor bad.

use super::http_client::{HttpClient, Outgoing, first_words};
use crate::rollout::Url;
use http::Method;
use http::header::ACCEPT;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the time that an answer is about may be from ours: a cache in between, or a clock that is wrong.
const OLDEST: Duration = Duration::from_secs(5 * 60);

/// What a query string may hold as it is (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// A time in seconds since the Unix epoch, and a number as text.
type Sample = (f64, String);

#[derive(Deserialize)]
struct Series {
    /// A native histogram has none.
    value: Option<Sample>,
}

/// The number that `query` has at the server below `url`, within 10 s. `now`: the time by our clock.
///
/// # Errors
/// In a sentence, for people: it cannot be asked, it says that something is wrong with the query, or the answer is not one
/// number: none (no data), several, no finite one (a division by zero), text, a range; or it is about another time.
pub async fn query(client: &HttpClient, url: &Url, query: &str, now: SystemTime) -> Result<f64, String> {
    let endpoint = endpoint(url, query);
    let outgoing = Outgoing {
        method: Method::GET,
        url: &endpoint,
        headers: &[(ACCEPT, "application/json")],
        body: Vec::new(),
    };
    let answer = client.send(outgoing).await.map_err(|failure| failure.to_string())?;
    let body = answer.body.map_err(|failure| failure.to_string())?;
    let Ok(reply) = serde_json::from_slice::<Reply>(&body) else {
        let status = answer.status.as_u16();
        return Err(match &*first_words(&body, url) {
            "" => format!("it answers {status}, and no JSON of Prometheus"),
            words => format!("it answers {status}, and no JSON of Prometheus: {words}"),
        });
    };
    number(reply, now)
}

/// `http://host/prefix` becomes `http://host/prefix/api/v1/query?query=…`; a query that is there stays.
fn endpoint(url: &Url, query: &str) -> Url {
    let url = url.secret();
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    let (base, parameters) = url.split_once('?').unwrap_or((url, ""));
    let and = if parameters.is_empty() { "" } else { "&" };
    let query = utf8_percent_encode(query, ENCODED);
    let base = base.trim_end_matches('/');
    Url::new(&format!("{base}/api/v1/query?{parameters}{and}query={query}"))
}

fn number(reply: Reply, now: SystemTime) -> Result<f64, String> {
    let data = match (&*reply.status, reply.data) {
        ("success", Some(data)) => data,
        (status, _) => {
            let said = reply.error.unwrap_or_else(|| format!("its status is `{status}`"));
            return Err(format!("Prometheus says: {said}"));
        }
    };
    let odd = |error: serde_json::Error| format!("its answer makes no sense: {error}");
    let sample: Sample = match &*data.result_type {
        "scalar" => serde_json::from_value(data.result).map_err(odd)?,
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(data.result).map_err(odd)?;
            only(series)?
        }
        "string" => return Err("the query gives text, and no number".to_owned()),
        "matrix" => {
            return Err(
                "the query gives a range: expected one number, as from `rate(…)` or `avg_over_time(…)`".to_owned(),
            );
        }
        other => return Err(format!("the query gives a `{other}`, and no number")),
    };
    let (time_s, text) = sample;
    let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let off_s = (now_s - time_s).abs();
    if off_s > OLDEST.as_secs_f64() {
        return Err(format!(
            "the answer is about a time {off_s:.0} s from now: is there a cache in between, or a clock wrong?"
        ));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("the query gives {text}: a division by zero?")),
        Err(_) => Err(format!("the query gives `{text}`, and no number")),
    }
}

fn only(series: Vec<Series>) -> Result<Sample, String> {
    let count = series.len();
    let mut series = series.into_iter();
    match (series.next(), count) {
        (None, _) => Err("no data: the query gives no sample".to_owned()),
        (Some(one), 1) => one
            .value
            .ok_or_else(|| "the query gives a histogram, and no number".to_owned()),
        _ => Err(format!(
            "the query gives {count} samples: expected one, as from `sum(…)` or with more labels"
        )),
    }
}

#[cfg(test)]
#[path = "prometheus_query_tests.rs"]
mod tests;
