//! Tests of closing polls: no vote is added after the seal, and the count is final once every queue is read to it.

use std::time::{Duration, Instant};

use serde_json::Value;
use vote_core::{Clock, SystemClock};
use vote_testkit::{Response, http_get};

use crate::world::{Setup, World, cookie, eventually, vote, vote_in};

fn polls(more: &str) -> String {
    format!(
        r#"
        [[poll]]
        slug = "pets"
        title = "Cats or dogs?"
        options = [{{ slug = "cats", label = "Cats" }}, {{ slug = "dogs", label = "Dogs" }}]
        {more}
        "#
    )
}

fn results(world: &World) -> Value {
    serde_json::from_str(&world.results.get("/polls/pets/results.json").text()).unwrap_or_default()
}

fn is_final(world: &World) -> bool {
    results(world)["status"] == "final"
}

#[track_caller]
fn assert_closed(answer: &Response) {
    let body: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    assert_eq!((answer.status, &body["error"]), (403, &"poll-closed".into()), "{}", answer.text());
}

#[test]
fn a_poll_past_its_closing_time_becomes_final_and_only_then_shows_its_numbers() {
    let closes_at = SystemClock.now().saturating_add(8_000_000);
    let file = polls(&format!("closes_at = \"{closes_at}\"\nresults = \"after-close\""));
    let world = World::with_polls(2, &file);
    let worker = world.worker("2");
    world.wait_until_ready();
    let voters: Vec<_> = world.frontends.iter().map(|frontend| cookie(frontend.public)).collect();
    for (frontend, voter) in world.frontends.iter().zip(&voters) {
        assert_eq!(vote(frontend.public, "cats", voter).status, 202);
    }
    eventually("both votes are in the store", Duration::from_secs(6), || {
        world.psql("SELECT coalesce(sum(n), 0) FROM vote.tally") == "2"
    });
    let before = results(&world);
    assert_eq!(
        (&before["status"], &before["withheld"], &before["total"]),
        (&"provisional".into(), &true.into(), &Value::Null)
    );
    eventually("the frontend accepts no more votes", Duration::from_secs(15), || {
        vote(world.frontends[0].public, "dogs", &voters[0]).status == 403
    });
    assert_closed(&vote(world.frontends[0].public, "dogs", &voters[0]));
    let page = http_get(world.frontends[0].public, "/polls/pets").text();
    assert!(page.contains("This poll closed at") && !page.contains("<form"), "{page}");
    eventually("the poll is final", Duration::from_secs(20), || is_final(&world));
    let after = results(&world);
    assert_eq!((&after["total"], &after["options"][0]["votes"]), (&2.into(), &2.into()), "{after}");
    let audit = world.assert_audit_holds();
    assert_eq!(audit["polls"][0]["state"], "final");
    let sealed =
        audit["polls"][0]["queues"].as_array().unwrap().iter().all(|queue| queue["complete"] == true);
    assert!(sealed, "{audit:#}");

    // A final poll stays so, whatever a file says later.
    let final_at = world.psql("SELECT final_at FROM vote.polls");
    drop(worker);
    world.set_polls(&polls("closes_at = \"2199-01-01T00:00:00Z\""));
    let _worker = world.worker("1");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(world.psql("SELECT final_at FROM vote.polls"), final_at);
    assert!(world.must("vote-worker", &["polls", "list"]).contains("final since"));
}

#[test]
fn a_frontend_that_was_frozen_when_the_poll_was_closed_accepts_nothing_for_it() {
    let world = World::start(1);
    let _worker = world.worker("2");
    world.wait_until_ready();
    let frontend = &world.frontends[0];
    assert_eq!(vote(frontend.public, "cats", &cookie(frontend.public)).status, 202);
    let (address, voter) = (frontend.public, cookie(frontend.public));
    assert!(frontend.service.signal("STOP"));
    // The kernel accepts the connection, and the frontend reads the vote when it continues.
    let late = std::thread::spawn(move || vote(address, "dogs", &voter));
    world.must("vote-worker", &["polls", "close", "pets"]);
    eventually("the poll is final", Duration::from_secs(20), || is_final(&world));
    assert!(frontend.service.signal("CONT"));
    assert_closed(&late.join().unwrap());
    let page = http_get(address, "/polls/pets").text();
    assert!(page.contains("This poll is closed"), "{page}");
    assert_eq!(results(&world)["total"], 1);
    world.assert_audit_holds();
}

#[test]
fn a_poll_is_not_final_while_a_queue_is_unavailable() {
    let world = World::start(2);
    let _worker = world.worker("2");
    world.wait_until_ready();
    for frontend in &world.frontends {
        assert_eq!(vote(frontend.public, "cats", &cookie(frontend.public)).status, 202);
    }
    eventually("both votes are counted", Duration::from_secs(10), || world.total() == 2);
    world.redis[1].kill9();
    world.must("vote-worker", &["polls", "close", "pets"]);
    std::thread::sleep(Duration::from_secs(6));
    assert!(!is_final(&world));
    let listed = world.must("vote-worker", &["polls", "list"]);
    assert!(
        listed.contains("not final: queue") && listed.contains("is not sealed for poll pets yet"),
        "{listed}"
    );
    world.redis[1].restart();
    eventually("the poll is final", Duration::from_secs(20), || is_final(&world));
    assert_closed(&vote(world.frontends[1].public, "dogs", &cookie_of_closed(&world)));
    world.assert_audit_holds();
}

/// Returns the cookie of a voter. The page of a closed poll sets none, so it is taken from the answer to a vote.
fn cookie_of_closed(world: &World) -> String {
    let answer = vote(world.frontends[0].public, "cats", "");
    answer.header("set-cookie").unwrap_or_default().split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn an_unregistered_poll_can_not_be_closed() {
    let world = World::start(1);
    let _worker = world.worker("1");
    world.wait_until_ready();
    let refused = world.command("vote-worker", &["polls", "close", "cars"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("poll cars is not registered"));
}

/// The queues are drained for the closed poll, so only the commits of the other poll can delay it.
#[test]
fn a_drained_poll_becomes_final_within_10_seconds_of_its_closing_while_another_is_busy() {
    let snack = "[[poll]]\nslug = \"snack\"\ntitle = \"Snack?\"\n\
        options = [{ slug = \"crisps\", label = \"Crisps\" }, { slug = \"popcorn\", label = \"Popcorn\" }]\n";
    let world =
        World::of(Setup { polls: Some(&(polls("") + snack)), partitions: Some("64"), ..Setup::default() });
    let _workers = [world.worker("4"), world.worker("4")];
    world.wait_until_ready();
    let frontend = world.frontends[0].public;
    let voters = std::iter::repeat_with(|| cookie(frontend)).take(5);
    for voter in voters {
        assert_eq!(vote_in(frontend, "snack", "crisps", &voter).unwrap().status, 202);
    }
    let snack = || world.results_json("snack");
    eventually("the votes are counted", Duration::from_secs(10), || snack()["total"] == 5);
    let _load = world.load(&["--voters", "100000", "--connections", "16", "--rate", "2000"]);
    eventually("the other poll is busy", Duration::from_secs(30), || world.total() > 4000);

    world.must("vote-worker", &["polls", "close", "snack"]);

    let start = Instant::now();
    while snack()["status"] != "final" && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let listed = world.must("vote-worker", &["polls", "list"]);
    assert_eq!(snack()["status"], "final", "{listed}");
    println!("the poll was final after {:?}", start.elapsed());
}
