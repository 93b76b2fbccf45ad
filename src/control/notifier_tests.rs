//! Against real receivers, with a real store.

use super::*;
use crate::config;
use crate::control::fixture::{self, PATIENCE, Reply, eventually, nobody, status, with_header};
use crate::control::store::{OUTBOX_MOST, Options};
use crate::rollout::{Notice, Receiver, Share, Url};
use crate::telemetry::fixture::{in_force, shared};
use serde_json::json;
use std::path::Path;
use tokio::task::JoinHandle;

/// For a receiver that hangs: short, and long for one that answers on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

fn taken() -> Reply {
    status("204 No Content", "")
}

fn to(url: &Url) -> Notify {
    Notify {
        to: Receiver::Webhook(url.clone()),
        events: None,
    }
}

fn told(notice: Notice, reason: &str) -> Notification {
    Notification {
        notice,
        service: "shop".into(),
        version: "v2".into(),
        phase: "rolled_back".into(),
        step: 2,
        share: Share::ZERO,
        reason: reason.into(),
        evidence: Vec::new(),
        generation: 12,
        time: "2026-03-01T12:00:00.000Z".into(),
    }
}

/// A process whose file has these receivers.
fn process(receivers: &[Notify]) -> Arc<Shared> {
    let notify = receivers.iter().map(|notify| match &notify.to {
        Receiver::Slack(url) => format!("{{ slack: \"{}\" }}", url.secret()),
        Receiver::Webhook(url) => format!("{{ webhook: \"{}\" }}", url.secret()),
    });
    let notify = notify.collect::<Vec<_>>().join(", ");
    let version =
        |name, role| format!("      - {{ name: {name}, role: {role}, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n");
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n  - name: shop\n    versions:\n{}{}    rollout: {{ steps: [{{ \
         share: 100%, hold: 1m }}], notify: [{notify}] }}\n",
        version("v1", "stable"),
        version("v2", "canary")
    );
    let snapshot = config::parse(&text, Path::new("/")).unwrap();
    let mut first = in_force(1, 1, &[]);
    first.snapshot = Arc::new(snapshot);
    shared(first, 1)
}

/// A process in miniature: its state, and its notifier at work.
struct Bench {
    shared: Arc<Shared>,
    store: Store,
    notifier: Arc<Notifier>,
    task: JoinHandle<Infallible>,
}

impl Bench {
    fn start(state_dir: &Path, receivers: &[Notify]) -> Self {
        let (store, restored) = Store::open(state_dir, Options::default()).unwrap();
        let shared = process(receivers);
        let client = HttpClient::giving_up_after(ANSWER_WITHIN);
        let notifier = Notifier::new(Arc::clone(&shared), store.clone(), client, restored.outbox);
        let notifier = Arc::new(notifier);
        let own = Arc::clone(&notifier);
        Self {
            shared,
            store,
            notifier,
            task: tokio::spawn(async move { own.run().await }),
        }
    }

    fn ended(&self, end: NotificationEnd) -> u64 {
        self.shared.notifications.ended(end)
    }

    /// Until all changes so far are on the disk.
    async fn saved(&self) {
        let changes = *self.notifier.changes.borrow();
        eventually("the disk has it", || *self.notifier.saved.borrow() >= changes).await;
    }

    /// Ends as a process does that is killed.
    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
        self.store.close(PATIENCE).unwrap();
    }
}

fn ids(received: &[fixture::Received]) -> Vec<String> {
    let id = |received: &fixture::Received| received.header("idempotency-key").unwrap().to_owned();
    received.iter().map(id).collect()
}

fn reasons(received: &[fixture::Received]) -> Vec<String> {
    let reason = |received: &fixture::Received| received.json()["reason"].as_str().unwrap().to_owned();
    received.iter().map(reason).collect()
}

#[tokio::test]
async fn each_receiver_is_told_in_its_form_of_what_it_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let (hook, slack) = (
        fixture::Receiver::new(taken()).await,
        fixture::Receiver::new(status("200 OK", "ok")).await,
    );
    let only = |events: &[Notice]| Some(events.into());
    let receivers = [
        Notify {
            to: Receiver::Webhook(hook.url("/events?a=b")),
            events: only(&[Notice::Rollback, Notice::Pause]),
        },
        Notify {
            to: Receiver::Slack(slack.url("/services/T0/B0/secret")),
            events: None,
        },
        // Twice in the list, told once.
        to(&hook.url("/events?a=b")),
    ];
    let bench = Bench::start(directory.path(), &receivers);
    bench
        .notifier
        .tell(&receivers[..2], &told(Notice::Step, "shop: v2 gets 10 %"));
    bench
        .notifier
        .tell(&receivers, &told(Notice::Rollback, "shop: v2 <fails>"));
    let at_slack = slack.after(2).await;
    assert_eq!(at_slack[0].json(), json!({ "text": "*step* shop: v2 gets 10 %" }));
    assert_eq!(
        at_slack[1].json(),
        json!({ "text": "*rollback* shop: v2 &lt;fails&gt;" })
    );
    assert_eq!(at_slack[1].line, "POST /services/T0/B0/secret HTTP/1.1");
    let at_hook = hook.after(1).await;
    assert_eq!(at_hook[0].line, "POST /events?a=b HTTP/1.1");
    assert_eq!(at_hook[0].header("content-type"), Some("application/json"));
    let told = at_hook[0].json();
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("rollback"), &json!("shop: v2 <fails>"))
    );
    assert_eq!(told["id"].as_str().unwrap(), ids(&at_hook)[0]);
    eventually("all are counted", || bench.ended(NotificationEnd::Delivered) == 3).await;
    assert_eq!(bench.shared.notifications.waiting(), 0);
    assert_eq!((hook.received().len(), slack.received().len()), (1, 2));
    bench.kill().await;
}

#[tokio::test]
async fn who_answers_500_is_told_again_with_the_same_id_until_it_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let hook = fixture::Receiver::new(status("500 Oh", "broken")).await;
    let receivers = [to(&hook.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    for reason in ["one", "two"] {
        bench.notifier.tell(&receivers, &told(Notice::Pause, reason));
    }
    hook.after(3).await;
    assert_eq!(bench.shared.notifications.waiting(), 2);
    hook.reply(taken());
    eventually("both are taken", || bench.ended(NotificationEnd::Delivered) == 2).await;
    let received = hook.received();
    let mut reasons = reasons(&received);
    reasons.dedup();
    assert_eq!(reasons, ["one", "two"], "in order");
    let mut ids = ids(&received);
    ids.dedup();
    assert_eq!(ids.len(), 2);
    bench.kill().await;
}

#[tokio::test]
async fn who_is_down_is_told_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let receivers = [to(&nobody.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    bench.notifier.tell(&receivers, &told(Notice::Rollback, "gone"));
    eventually("an attempt has failed", || bench.notifier.queue().has_failed()).await;
    let hook = fixture::Receiver::on(nobody.address, taken(), None).await;
    assert_eq!(reasons(&hook.after(1).await), ["gone"]);
    bench.kill().await;
}

#[tokio::test]
async fn who_is_refused_is_not_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = fixture::Receiver::new(taken()).await;
    let location = format!("location: {}", elsewhere.url("/").secret());
    let hook = fixture::Receiver::new(with_header("307 Temporary Redirect", &location, "")).await;
    let receivers = [to(&hook.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    bench.notifier.tell(&receivers, &told(Notice::Step, "one"));
    eventually("it has ended", || bench.ended(NotificationEnd::Refused) == 1).await;
    hook.reply(status("410 Gone", "no_service"));
    bench.notifier.tell(&receivers, &told(Notice::Step, "two"));
    eventually("it has ended", || bench.ended(NotificationEnd::Refused) == 2).await;
    assert_eq!((hook.received().len(), elsewhere.received().len()), (2, 0));
    bench.kill().await;
}

/// What a rollback must never wait for: the network and the disk.
#[tokio::test]
async fn who_tells_does_not_wait_for_receivers_or_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let silent = fixture::Receiver::new(Reply::Silence).await;
    let quick = fixture::Receiver::new(taken()).await;
    let receivers = [to(&silent.url("/")), to(&quick.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    bench.notifier.tell(&receivers, &told(Notice::Step, "first"));
    silent.after(1).await;
    // From here on the disk takes nothing.
    let lock = bench.store.freeze().await.unwrap();
    let began = Instant::now();
    for number in 0..500 {
        bench
            .notifier
            .tell(&receivers, &told(Notice::Rollback, &number.to_string()));
    }
    // To wait for the silent one a single time, a thousand times, is to wait for an hour.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // One that is silent holds up nobody else, nor does the disk.
    let expected: Vec<_> = std::iter::once("first".to_owned())
        .chain((0..500).map(|n| n.to_string()))
        .collect();
    assert_eq!(reasons(&quick.after(501).await), expected);
    assert!(bench.shared.notifications.waiting() >= 500);
    drop(lock);
    bench.store.thaw().await.unwrap();
    silent.reply(taken());
    eventually("all are delivered", || bench.shared.notifications.waiting() == 0).await;
    assert_eq!(bench.ended(NotificationEnd::Delivered), 1002);
    bench.kill().await;
}

#[tokio::test]
async fn what_waits_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let receivers = [to(&nobody.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    for reason in ["one", "two", "three"] {
        bench.notifier.tell(&receivers, &told(Notice::Rollback, reason));
    }
    bench.saved().await;
    let waiting = bench.notifier.queue().entries();
    bench.kill().await;

    let hook = fixture::Receiver::on(nobody.address, taken(), None).await;
    let bench = Bench::start(directory.path(), &receivers);
    assert_eq!(bench.notifier.queue().entries(), waiting);
    let received = hook.after(3).await;
    assert_eq!(reasons(&received), ["one", "two", "three"]);
    assert_eq!(
        ids(&received),
        waiting.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>()
    );
    eventually("none waits", || bench.shared.notifications.waiting() == 0).await;
    bench.saved().await;
    bench.kill().await;

    // The next process has nothing to tell.
    let bench = Bench::start(directory.path(), &receivers);
    assert_eq!(bench.shared.notifications.waiting(), 0);
    bench.kill().await;
    assert_eq!(hook.received().len(), 3);
}

#[tokio::test]
async fn who_has_left_the_file_is_not_told_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let receivers = [to(&nobody.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    bench.notifier.tell(&receivers, &told(Notice::Rollback, "one"));
    bench.saved().await;
    bench.kill().await;
    let hook = fixture::Receiver::on(nobody.address, taken(), None).await;
    let bench = Bench::start(directory.path(), &[]);
    eventually("it has ended", || bench.ended(NotificationEnd::Withdrawn) == 1).await;
    assert_eq!((bench.shared.notifications.waiting(), hook.received().len()), (0, 0));
    bench.kill().await;
}

#[tokio::test]
async fn of_too_many_the_oldest_are_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let receivers = [to(&nobody.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    for _ in 0..OUTBOX_MOST + 7 {
        bench.notifier.tell(&receivers, &told(Notice::Step, "one of many"));
    }
    assert_eq!(bench.ended(NotificationEnd::Dropped), 7);
    assert_eq!(bench.shared.notifications.waiting(), OUTBOX_MOST as u64);
    bench.kill().await;
}

#[tokio::test]
async fn what_is_frozen_tells_nobody_and_has_everything_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let hook = fixture::Receiver::new(taken()).await;
    let receivers = [to(&hook.url("/"))];
    let bench = Bench::start(directory.path(), &receivers);
    bench.notifier.freeze().await;
    bench.notifier.tell(&receivers, &told(Notice::Step, "later"));
    bench.saved().await;
    // A second one after the loop has seen the first.
    bench.notifier.freeze().await;
    let lock = bench.store.freeze().await.unwrap();
    assert_eq!(hook.received().len(), 0);
    drop(lock);
    bench.store.thaw().await.unwrap();
    bench.notifier.thaw();
    assert_eq!(reasons(&hook.after(1).await), ["later"]);
    bench.kill().await;
}

#[tokio::test]
async fn a_task_that_broke_off_in_an_attempt_begins_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let hook = fixture::Receiver::new(Reply::Silence).await;
    let receivers = [to(&hook.url("/"))];
    let mut bench = Bench::start(directory.path(), &receivers);
    bench.notifier.tell(&receivers, &told(Notice::Rollback, "one"));
    hook.after(1).await;
    bench.task.abort();
    drop(bench.task.await);
    hook.reply(taken());
    let own = Arc::clone(&bench.notifier);
    bench.task = tokio::spawn(async move { own.run().await });
    eventually("it is taken", || bench.ended(NotificationEnd::Delivered) == 1).await;
    let ids = ids(&hook.received());
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    bench.kill().await;
}

/// The name in the outbox says nothing of the address, and never changes meaning: entries outlive the process.
#[test]
fn receivers_have_names_that_stay() {
    let url = Url::new("https://hooks.slack.example/services/T0/B0/secret");
    let name = receivers::name(&Receiver::Slack(url.clone()));
    // SHA-256 of both lengths and texts, by another program.
    assert_eq!(&*name, "802e632cf46d4634af53467886693ea7");
    assert_ne!(name, receivers::name(&Receiver::Webhook(url)));
}
