//! No public response depends on the votes for a withheld poll.
//!
//! Two deployments are started in the same way, and votes are cast in only one of them, the trial. While the clock
//! stands still, no byte of any response of the trial may change, headers included. When time passes, responses contain
//! other times, so they are compared with those of the other deployment, the control, at the same time: what is equal
//! there does not depend on votes. Two things are removed from the responses, neither of which depends on votes:
//!
//! - the identity of the queue, which is random in each deployment;
//! - the `retry:` of an event stream, which depends on the number of streams opened before.
//!
//! The paths come from the router's own table, so new routes are covered automatically.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::ServiceExt;
use vote_core::{
    Clock, Polls, Queue, Vote,
    conformance::frames,
    count::{QueueRecord, QueueState},
    queue::Frame,
};
use vote_results::routes;
use vote_service::{Body, Guards, Receipt, layers};

use crate::world::{World, next, vote};

const LIVE: &str = "live";
const AFTER_CLOSE: &str = "after-close";

/// The polls in the service's file and in the store: their slugs and their setting of `results`.
struct Case {
    name: &'static str,
    file: &'static [(&'static str, &'static str)],
    store: &'static [(&'static str, &'static str)],
}

/// The cases in which `pets` is withheld. `snack` is a live poll without votes.
const SECRET: &[Case] = &[
    Case {
        name: "after-close in the file and the store",
        file: &[("pets", AFTER_CLOSE), ("snack", LIVE)],
        store: &[("pets", AFTER_CLOSE), ("snack", LIVE)],
    },
    Case { name: "after-close in the file only", file: &[("pets", AFTER_CLOSE)], store: &[("pets", LIVE)] },
    Case { name: "after-close in the store only", file: &[("pets", LIVE)], store: &[("pets", AFTER_CLOSE)] },
    Case {
        name: "not registered",
        file: &[("pets", AFTER_CLOSE), ("snack", LIVE)],
        store: &[("snack", LIVE)],
    },
    Case { name: "not registered, and live in the file", file: &[("pets", LIVE)], store: &[] },
    Case {
        name: "not in the file",
        file: &[("snack", LIVE)],
        store: &[("snack", LIVE), ("pets", AFTER_CLOSE)],
    },
    Case {
        name: "not in the file, and live in the store",
        file: &[("snack", LIVE)],
        store: &[("snack", LIVE), ("pets", LIVE)],
    },
    Case { name: "neither registered nor in the file", file: &[("snack", LIVE)], store: &[("snack", LIVE)] },
];

const PUBLIC: Case = Case { name: "public", file: &[("pets", LIVE)], store: &[("pets", LIVE)] };

fn polls(polls: &[(&str, &str)]) -> Option<Polls> {
    let poll = |(slug, results): &(&str, &str)| {
        format!(
            "[[poll]]\nslug = \"{slug}\"\ntitle = \"Which?\"\nresults = \"{results}\"\n\
             options = [{{ slug = \"cats\", label = \"Cats\" }}, {{ slug = \"dogs\", label = \"Dogs\" }}]\n"
        )
    };
    let text: String = polls.iter().map(poll).collect();
    (!text.is_empty()).then(|| Polls::from_toml("polls.toml", &text).unwrap())
}

/// A deployment, with the receipt of a vote that was counted or quarantined before the first request.
struct Deployment {
    world: World,
    receipt: Receipt,
    accepted: u64,
}

impl Deployment {
    async fn start(case: &Case) -> Self {
        let world = World::registered(polls(case.file).unwrap(), polls(case.store).as_ref()).await;
        let receipt = world.accept(vote(0, 0, 1)).await;
        let deployment = Self { world, receipt, accepted: 1 };
        deployment.count().await;
        deployment.report(0, QueueState::Active).await;
        deployment
    }

    async fn accept(&mut self, votes: impl IntoIterator<Item = Vote>) {
        for vote in votes {
            self.world.accept(vote).await;
            self.accepted += 1;
        }
    }

    /// Accepts a frame that can't be decoded.
    async fn accept_damaged(&mut self, vote: Vote) {
        let good = frames(&[vote]).remove(0);
        let mut bytes = good.bytes.to_vec();
        bytes[5] ^= 1;
        self.world.append(&Frame { bytes: Bytes::from(bytes), ..good }).await;
        self.accepted += 1;
    }

    async fn count(&self) {
        self.world.count().await;
        self.world.refresher.refresh().await;
    }

    /// Reports the queue as a worker does, with a reason that contains its number of votes.
    async fn report(&self, queued: u64, state: QueueState) {
        let World { id, queue, clock, store, refresher, .. } = &self.world;
        let votes = |n| [("pets".to_owned(), n)].into();
        let reason = match state {
            QueueState::Active => String::new(),
            _ => format!("it counts {} votes where more had been seen", self.accepted),
        };
        let record = QueueRecord {
            accepted: votes(self.accepted),
            queued: votes(queued),
            backlog: queued,
            state,
            reason,
            ..QueueRecord::new(*id, queue.address(), clock.now())
        };
        store.inner.report(&[record]).await.unwrap();
        refresher.refresh().await;
    }

    /// Requests every public route, and returns the responses by name.
    async fn crawl(&self) -> BTreeMap<String, String> {
        let mut answers = BTreeMap::new();
        for template in routes::templates() {
            for (name, path) in self.paths(template) {
                for accept in ["text/html", "application/json"] {
                    // As in production, with the headers that the outer layers add.
                    let app = layers::guard(self.world.app.clone(), &Guards::default());
                    let request = Request::builder().uri(&path).header("accept", accept).body(()).unwrap();
                    let answer = text(app.oneshot(request).await.unwrap()).await;
                    let answer = answer.replace(&self.world.id.to_string(), "(the queue)");
                    answers.insert(format!("{name} as {accept}"), answer);
                }
            }
        }
        answers
    }

    /// Returns the paths to request for a template, each with a name. A template with an unknown segment fails the
    /// test: add values for it here.
    fn paths(&self, template: &str) -> Vec<(String, String)> {
        let token = self.world.key.seal(&self.receipt);
        let (segment, values): (_, Vec<(&str, &str)>) = match template.split_once('{').map(|(_, rest)| rest) {
            None => return vec![(template.to_owned(), template.to_owned())],
            Some(rest) if rest.starts_with("poll}") => ("{poll}", vec![("pets", "pets"), ("snack", "snack")]),
            Some(rest) if rest.starts_with("receipt}") => {
                ("{receipt}", vec![("known", token.as_str()), ("unknown", "x")])
            }
            Some(_) => panic!("{template}: no values for this segment in this test, add some"),
        };
        let of = |(name, value)| (template.replace(segment, name), template.replace(segment, value));
        values.into_iter().map(of).collect()
    }
}

/// Formats a response as text: status, headers, body.
async fn text(answer: Response<Body>) -> String {
    let (head, mut body) = answer.into_parts();
    let headers: BTreeMap<_, _> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap())).collect();
    let body = if headers.get("content-type") == Some(&"text/event-stream") {
        assert!(next(&mut body).await.unwrap().starts_with("retry: "));
        next(&mut body).await.unwrap()
    } else {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    format!("{} {headers:?}\n{body}", head.status)
}

/// Returns the responses that differ, each with its name.
fn changes(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    assert!(before.keys().eq(now.keys()));
    let changed = before.iter().filter(|(name, answer)| now[*name] != **answer);
    changed.map(|(name, answer)| format!("{name}:\n{answer}\nand then\n{}", now[name])).collect()
}

/// Returns the responses that depend on votes, each with the step that revealed it.
async fn leaks(case: &Case) -> Vec<String> {
    let (mut trial, control) = (Deployment::start(case).await, Deployment::start(case).await);
    let mut leaks = Vec::new();
    let mut note = |step: &str, changes: Vec<String>| {
        leaks.extend(changes.into_iter().map(|change| format!("{}; {step}; {change}", case.name)));
    };
    let before = trial.crawl().await;
    trial.accept((1..47).map(|voter| vote(voter, u8::from(voter > 30), 1))).await;
    trial.report(46, QueueState::Active).await;
    note("votes are queued", changes(&before, &trial.crawl().await));

    trial.count().await;
    trial.report(0, QueueState::Active).await;
    note("votes are counted or quarantined", changes(&before, &trial.crawl().await));

    trial.accept([vote(1, 1, 9), vote(2, 1, 9)]).await;
    trial.accept_damaged(vote(50, 0, 9)).await;
    trial.count().await;
    note("votes are superseded, and one is damaged", changes(&before, &trial.crawl().await));

    for deployment in [&trial, &control] {
        deployment.world.clock.advance(10);
    }
    trial.accept([vote(60, 0, 10)]).await;
    for (state, step) in [(QueueState::Active, "time passes"), (QueueState::Diverged, "a queue diverges")] {
        for deployment in [&trial, &control] {
            deployment.count().await;
            deployment.report(0, state).await;
        }
        note(step, changes(&control.crawl().await, &trial.crawl().await));
    }
    let accounts = trial.world.store.inner.snapshot().await.unwrap().accounts(false).await.unwrap();
    let counted: u64 = accounts.ledger.iter().map(|row| row.entry.accepted).sum();
    assert_eq!((counted, accounts.queues[0].votes_accepted()), (51, 51), "there are too few votes to leak");
    leaks
}

#[tokio::test(start_paused = true)]
async fn no_response_depends_on_the_votes_for_a_withheld_poll() {
    let mut found = Vec::new();
    for case in SECRET {
        found.extend(leaks(case).await);
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[tokio::test(start_paused = true)]
async fn votes_for_a_withheld_poll_neither_send_an_event_nor_change_the_time_of_the_last_change() {
    for case in SECRET {
        let mut trial = Deployment::start(case).await;
        // This response has the entity tag and `updated_at`.
        let before = trial.world.get("/polls/pets/results.json").await;
        let mut streams = Vec::new();
        for (slug, _) in case.file {
            let mut events = trial.world.events(&format!("/polls/{slug}/events")).await;
            for _ in 0..2 {
                next(&mut events).await.unwrap();
            }
            streams.push(events);
        }
        trial.world.clock.advance(10);
        trial.accept((1..47).map(|voter| vote(voter, 0, 1))).await;
        trial.count().await;
        trial.report(0, QueueState::Active).await;
        for events in &mut streams {
            assert_eq!(next(events).await.unwrap(), ": still here\n\n", "{}", case.name);
        }
        let after = trial.world.get("/polls/pets/results.json").await;
        assert_eq!((after.headers, after.body), (before.headers, before.body), "{}", case.name);
    }
}

/// Verifies that the check above can fail: for a public poll, it finds every route that shows figures.
#[tokio::test(start_paused = true)]
async fn responses_with_figures_depend_on_the_votes_for_a_public_poll() {
    let leaks = leaks(&PUBLIC).await;

    let counted = leaks.iter().filter(|leak| leak.contains("; votes are counted or quarantined; "));
    let names = counted.filter_map(|leak| leak.split_once(" as text/html:")?.0.rsplit("; ").next());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "/polls/pets",
            "/polls/pets/events",
            "/polls/pets/results.csv",
            "/polls/pets/results.json",
            "/status",
            "/status.json",
        ]
    );
}
