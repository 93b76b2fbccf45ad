//! What receivers are told.

use crate::rollout::{Notice, Share};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most characters of the reason that are sent.
const REASON_MOST: usize = 2_000;
/// The most sentences on checks (a plan has no more checks), and the most characters of each.
const FOUND_MOST: usize = 32;
const FOUND_LENGTH: usize = 300;

/// Something that happened to a rollout: the object that webhooks get, but for its `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    #[serde(rename = "type")]
    pub notice: Notice,
    pub service: Box<str>,
    /// The candidate.
    pub version: Box<str>,
    /// After it, as in metrics: `progressing`, `rolled_back`.
    pub phase: Box<str>,
    /// The step in force, from 1; 0: none.
    pub step: u32,
    /// The candidate's share, told in percent, 0 to 100.
    #[serde(serialize_with = "as_percent", deserialize_with = "from_percent")]
    pub share: Share,
    /// For people: what happened and why.
    pub reason: Box<str>,
    /// What each check found at that moment, a sentence each.
    pub evidence: Vec<Box<str>>,
    /// Of the configuration in force afterwards.
    pub generation: u64,
    /// RFC 3339, in UTC.
    pub time: Box<str>,
}

fn as_percent<S: Serializer>(share: &Share, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(f64::from(share.thousandths_percent()) / 1_000.0)
}

fn from_percent<'de, D: Deserializer<'de>>(from: D) -> Result<Share, D::Error> {
    let percent = f64::deserialize(from)?;
    Ok(Share::from_thousandths((percent * 1_000.0).round() as u32))
}

#[derive(Serialize)]
struct WithId<'n> {
    #[serde(flatten)]
    notification: &'n Notification,
    id: &'n str,
}

#[derive(Serialize)]
struct Slack {
    text: String,
}

impl Notification {
    /// As it is kept: with sentences that are not longer than is sent.
    pub(super) fn kept(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Self {
            reason: cut(&self.reason, REASON_MOST),
            evidence: self
                .evidence
                .iter()
                .take(FOUND_MOST)
                .map(|found| cut(found, FOUND_LENGTH))
                .collect(),
            ..self.clone()
        })
    }

    /// For a webhook.
    pub(super) fn json(&self, id: &str) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&WithId { notification: self, id })
    }

    /// For Slack, and what takes the same (Mattermost, Rocket.Chat, Discord's `/slack`): `*rollback* checkout: …`.
    pub(super) fn slack(&self) -> serde_json::Result<Vec<u8>> {
        let text = format!("*{}* {}", self.notice.word(), escaped(&self.reason));
        serde_json::to_vec(&Slack { text })
    }
}

fn cut(sentence: &str, most: usize) -> Box<str> {
    match sentence.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", sentence.get(..end).unwrap_or_default()).into(),
        None => sentence.into(),
    }
}

/// The three characters that mean something to Slack, so that no text makes a link or calls for people
/// (<https://api.slack.com/reference/surfaces/formatting#escaping>).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn notification(reason: &str) -> Notification {
        Notification {
            notice: Notice::Rollback,
            service: "checkout".into(),
            version: "v2".into(),
            phase: "rolled_back".into(),
            step: 2,
            share: Share::from_thousandths(12_500),
            reason: reason.into(),
            evidence: vec!["v2 fails 2.1 %".into()],
            generation: 42,
            time: "2026-03-01T12:00:00.000Z".into(),
        }
    }

    fn read(bytes: serde_json::Result<Vec<u8>>) -> Value {
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    }

    #[test]
    fn a_webhook_gets_one_object() {
        let told = read(notification("v2 \"fails\"").json("00ff"));
        let expected = json!({
            "type": "rollback", "service": "checkout", "version": "v2", "phase": "rolled_back", "step": 2, "share": 12.5,
            "reason": "v2 \"fails\"", "evidence": ["v2 fails 2.1 %"], "generation": 42,
            "time": "2026-03-01T12:00:00.000Z", "id": "00ff"
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn slack_gets_a_text_in_which_nothing_is_a_command() {
        let told = read(notification("<!channel> a & b <http://x|y> *bold*").slack());
        let text = "*rollback* &lt;!channel&gt; a &amp; b &lt;http://x|y&gt; *bold*";
        assert_eq!(told, json!({ "text": text }));
    }

    #[test]
    fn types_are_the_words_of_the_file() {
        for notice in [
            Notice::Start,
            Notice::Step,
            Notice::Approval,
            Notice::Pause,
            Notice::Resume,
            Notice::Promote,
            Notice::Success,
            Notice::Rollback,
            Notice::Kill,
        ] {
            assert_eq!(serde_json::to_value(notice).unwrap(), notice.word());
        }
    }

    #[test]
    fn what_is_kept_is_read_again_and_not_longer_than_is_sent() {
        for thousandths in [0, 1, 100, 333, 12_345, 99_999, 100_000] {
            let told = Notification {
                share: Share::from_thousandths(thousandths),
                ..notification("short")
            };
            let again: Notification = serde_json::from_str(&told.kept().unwrap()).unwrap();
            assert_eq!(again, told);
        }
        let long: Box<str> = "ä".repeat(100_000).into();
        let told = Notification {
            evidence: vec![long.clone(); 1_000],
            ..notification(&long)
        };
        let again: Notification = serde_json::from_str(&told.kept().unwrap()).unwrap();
        assert_eq!(again.reason.chars().count(), REASON_MOST + 1);
        assert_eq!(again.evidence.len(), FOUND_MOST);
        assert!(
            again
                .evidence
                .iter()
                .all(|found| found.chars().count() == FOUND_LENGTH + 1)
        );
    }
}
