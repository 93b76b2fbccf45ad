//! Which certificates an operator has to do something about.

use super::api::CertificateProblem;
use crate::shared::{CertificateStatus, Shared};
use crate::telemetry::rfc3339;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Those in use that are not what is on the disk, or not valid now; by file.
pub fn problems(shared: &Shared) -> Vec<CertificateProblem> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let certificates = shared.certificates.lock().unwrap_or_else(PoisonError::into_inner);
    certificates
        .iter()
        .filter_map(|certificate| {
            Some(CertificateProblem {
                file: certificate.file.to_string(),
                names: certificate.names.to_vec(),
                expires: certificate.expires_s.map(date),
                problem: problem(certificate, now_s)?,
            })
        })
        .collect()
}

/// `None`: all is well.
fn problem(certificate: &CertificateStatus, now_s: i64) -> Option<String> {
    let unread = certificate.error.as_ref();
    let unread =
        unread.map(|error| format!("what is on the disk cannot be used, what was there before it is in use: {error}"));
    let expired = certificate.expires_s.filter(|&expires_s| expires_s < now_s);
    let expired = expired.map(|expires_s| format!("it, or one of its chain, expired on {}", date(expires_s)));
    let early = certificate.begins_s.filter(|&begins_s| begins_s > now_s);
    let early = early.map(|begins_s| format!("it, or one of its chain, is not valid before {}", date(begins_s)));
    let all: Vec<String> = [unread, expired, early].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// RFC 3339; before 1970: its beginning.
fn date(seconds: i64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_and_nothing_else() {
        let status = |begins_s, expires_s, error: Option<&str>| CertificateStatus {
            file: "/a.pem".into(),
            names: Box::default(),
            begins_s,
            expires_s,
            error: error.map(Into::into),
        };
        let now_s = 1_783_900_800;
        assert_eq!(problem(&status(Some(now_s), Some(now_s), None), now_s), None);
        assert_eq!(problem(&status(None, None, None), now_s), None, "authorities");
        for (certificate, expected) in [
            (
                status(Some(0), Some(now_s - 1), None),
                "expired on 2026-07-12T23:59:59.000Z",
            ),
            (
                status(Some(now_s + 1), Some(i64::MAX), None),
                "not valid before 2026-07-13T00:00:01.000Z",
            ),
            (
                status(None, None, Some("/ca.pem: no certificate in it")),
                "before it is in use: /ca.pem: no certificate in it",
            ),
            (
                status(Some(-5), Some(-1), Some("broken")),
                "in use: broken; it, or one of its chain, expired on 1970-01-01T00:00:00.000Z",
            ),
        ] {
            let told = problem(&certificate, now_s).unwrap();
            assert!(told.ends_with(expected), "{told}");
        }
    }
}
