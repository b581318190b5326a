//! Whole runs against a fake site, correct or with faults.

use std::time::Duration;

use vote_core::Keep;

use crate::{
    args::Config,
    error::LoadError,
    exit_code,
    fake::{Faults, Site},
    report::Report,
    run::run,
};

const KEEPS: [Keep; 2] = [Keep::First, Keep::Last];

fn config(site: &Site, keep: Keep) -> Config {
    Config {
        targets: site.frontends.iter().map(|url| url.parse().unwrap()).collect(),
        results: site.results.parse().unwrap(),
        poll: "pets".parse().unwrap(),
        voters: 300,
        double: 0.3,
        connections: 8,
        seed: 1,
        keep,
        attempts: 4,
        request_timeout: Duration::from_secs(5),
        rate: None,
        timeout: Duration::from_millis(700),
        settle: Duration::from_millis(200),
    }
}

async fn check(site: &Site, keep: Keep) -> (Report, u8) {
    let ended = run(config(site, keep)).await;
    let code = exit_code(&ended);
    (ended.unwrap(), code)
}

async fn site(keep: Keep, faults: Faults) -> Site {
    Site::start(2, keep, faults).await
}

#[tokio::test]
async fn a_correct_site_is_exact() {
    for keep in KEEPS {
        let site = site(keep, Faults::default()).await;
        let (report, code) = check(&site, keep).await;
        assert_eq!((report.exact, code), (true, 0), "{report:?}");
        assert_eq!((report.unknown, report.refused, report.unsent, report.retries), (0, 0, 0, 0));
        assert_eq!(report.acked, 300 + report.double_votes);
        assert_eq!(report.expected.values().sum::<u64>(), 300);
        assert!(report.expected.iter().all(|(option, n)| report.tally[option] == *n as i64 && *n > 0));
        assert_eq!(report.double_votes, 90);
        assert!(report.drain_seconds.is_some() && report.votes_per_second > 0.0);
        assert!(report.p50_ms > 0.0 && report.p99_ms >= report.p50_ms);
        assert_eq!(site.voters().len(), 300);
    }
}

#[tokio::test]
async fn a_second_vote_is_cast_at_another_frontend() {
    let site = site(Keep::First, Faults::default()).await;
    let (report, _) = check(&site, Keep::First).await;
    let twice: Vec<_> = site.seen().into_iter().filter(|frontends| frontends.len() == 2).collect();
    assert_eq!(twice.len() as u64, report.double_votes);
    assert!(twice.iter().all(|frontends| frontends[0] != frontends[1]));
    assert!((0..2).all(|frontend| twice.iter().any(|frontends| frontends[0] == frontend)));
}

#[tokio::test]
async fn with_one_frontend_the_second_vote_is_cast_there_too() {
    let site = Site::start(1, Keep::Last, Faults::default()).await;
    let (report, code) = check(&site, Keep::Last).await;
    assert!(report.double_votes > 0);
    assert_eq!(code, 0, "{report:?}");
}

#[tokio::test]
async fn a_lost_vote_is_detected() {
    for keep in KEEPS {
        let (report, code) = check(&site(keep, Faults { lost: 97, ..Faults::default() }).await, keep).await;
        assert_eq!((report.exact, code, report.drain_seconds), (false, 1, None), "{report:?}");
    }
}

#[tokio::test]
async fn a_vote_that_is_counted_twice_is_detected() {
    for keep in KEEPS {
        let (report, code) = check(&site(keep, Faults { twice: 97, ..Faults::default() }).await, keep).await;
        assert_eq!((report.exact, code), (false, 1), "{report:?}");
    }
}

#[tokio::test]
async fn a_vote_that_is_counted_for_another_option_is_detected() {
    let faults = Faults { changed: 97, ..Faults::default() };
    let (report, code) = check(&site(Keep::First, faults).await, Keep::First).await;
    assert_eq!((report.exact, code), (false, 1), "{report:?}");
    assert_eq!(report.tally.values().sum::<i64>(), 300);
}

#[tokio::test]
async fn a_site_that_keeps_the_wrong_vote_is_detected() {
    for (keeps, asked) in [(Keep::First, Keep::Last), (Keep::Last, Keep::First)] {
        let (report, code) = check(&site(keeps, Faults::default()).await, asked).await;
        assert_eq!((report.exact, code), (false, 1), "{report:?}");
    }
}

#[tokio::test]
async fn a_vote_without_an_answer_or_with_a_503_is_retried() {
    let faults = Faults { busy: 7, doubtful: 11, cut: 17, cut_before: 23, ..Faults::default() };
    for keep in KEEPS {
        let (report, code) = check(&site(keep, faults).await, keep).await;
        assert_eq!((report.exact, code), (true, 0), "{report:?}");
        assert!(report.retries > 50, "{report:?}");
    }
}

#[tokio::test]
async fn votes_that_stay_unknown_may_be_counted_or_not() {
    // One kind at a time: missing unknown votes could hide others that were counted wrongly.
    let faults = [
        Faults { busy: 3, ..Faults::default() },
        Faults { doubtful: 3, ..Faults::default() },
        Faults { bare: 3, ..Faults::default() },
        Faults { cut: 3, ..Faults::default() },
        Faults { cut_before: 3, ..Faults::default() },
    ];
    for (faults, keep) in faults.into_iter().flat_map(|faults| KEEPS.map(|keep| (faults, keep))) {
        let site = site(keep, faults).await;
        let ended = run(Config { attempts: 1, ..config(&site, keep) }).await;
        let report = ended.as_ref().unwrap();
        assert!(report.exact && report.unknown > 100 && report.ambiguous > 60, "{report:?}");
        assert_eq!(exit_code(&ended), 0);
    }
}

#[tokio::test]
async fn unknown_votes_don_t_hide_one_that_is_counted_twice() {
    // One vote of 300 is unknown, three are counted twice.
    let faults = Faults { cut: 290, twice: 97, ..Faults::default() };
    let site = site(Keep::First, faults).await;
    let ended = run(Config { attempts: 1, double: 0.0, ..config(&site, Keep::First) }).await;
    let report = ended.as_ref().unwrap();
    assert_eq!((report.exact, report.unknown, exit_code(&ended)), (false, 1, 1), "{report:?}");
}

#[tokio::test]
async fn a_vote_that_is_counted_a_second_time_later_is_detected() {
    let site = site(Keep::First, Faults { late: true, ..Faults::default() }).await;
    let (report, code) = check(&site, Keep::First).await;
    assert_eq!((report.exact, code), (false, 1), "{report:?}");
}

#[tokio::test]
async fn a_tally_that_never_stops_changing_is_an_error() {
    let site = site(Keep::First, Faults { restless: true, ..Faults::default() }).await;
    let ended = run(config(&site, Keep::First)).await;
    assert!(matches!(ended, Err(LoadError::NotStill { .. })), "{ended:?}");
    assert_eq!(exit_code(&ended), 2);
}

#[tokio::test]
async fn several_runs_can_use_one_poll() {
    let site = site(Keep::First, Faults::default()).await;
    for seed in 1..4 {
        let report = run(Config { seed, ..config(&site, Keep::First) }).await.unwrap();
        assert!(report.exact, "{report:?}");
        assert_eq!(report.tally.values().sum::<i64>(), 300);
    }
}

#[tokio::test]
async fn the_seed_determines_the_expected_tally() {
    let site = site(Keep::Last, Faults::default()).await;
    let mut expected = Vec::new();
    for (seed, connections) in [(5, 1), (5, 16), (6, 16)] {
        let run = run(Config { seed, connections, ..config(&site, Keep::Last) });
        expected.push(run.await.unwrap().expected);
    }
    assert_eq!(expected[0], expected[1]);
    assert_ne!(expected[1], expected[2]);
}

#[tokio::test]
async fn the_rate_is_not_exceeded() {
    let site = site(Keep::First, Faults::default()).await;
    let report = run(Config { voters: 100, double: 0.0, rate: Some(200.0), ..config(&site, Keep::First) })
        .await
        .unwrap();
    assert!((100.0..=205.0).contains(&report.votes_per_second), "{report:?}");
}

#[tokio::test]
async fn a_stopped_frontend_is_skipped() {
    for keep in KEEPS {
        let mut site = Site::start(3, keep, Faults::default()).await;
        let running = tokio::spawn(run(Config { voters: 2000, ..config(&site, keep) }));
        while site.voters().len() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        site.stop(1).await;
        let before = site.seen().iter().flatten().filter(|frontend| **frontend == 1).count();
        let report = running.await.unwrap().unwrap();
        let after = site.seen().iter().flatten().filter(|frontend| **frontend == 1).count();
        assert!(before == after && before > 50, "{before} {after}");
        assert!(report.exact && report.acked == 2000 + report.double_votes, "{report:?}");
    }
}

#[tokio::test]
async fn without_frontends_casting_is_given_up() {
    let mut site = site(Keep::First, Faults::default()).await;
    let running = tokio::spawn(run(Config { voters: 1_000_000, ..config(&site, Keep::First) }));
    while site.voters().len() < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    site.stop(0).await;
    site.stop(1).await;
    let ended = running.await.unwrap();
    let report = ended.as_ref().unwrap();
    assert!(report.exact && report.acked >= 100 && report.unsent > 0, "{report:?}");
    assert!(report.incomplete.as_ref().is_some_and(|why| why.contains("given up")), "{report:?}");
    assert_eq!(exit_code(&ended), 2);
}

#[tokio::test]
async fn a_closed_poll_proves_nothing() {
    let site = site(Keep::First, Faults { closed: true, ..Faults::default() }).await;
    let ended = run(config(&site, Keep::First)).await;
    let report = ended.as_ref().unwrap();
    assert_eq!((report.exact, report.acked, report.refused, exit_code(&ended)), (true, 0, 300, 2));
    assert!(report.incomplete.as_ref().is_some_and(|why| why.contains("the poll is closed")), "{report:?}");
}

#[tokio::test]
async fn a_frontend_that_needs_no_cookie_is_an_error() {
    let site = site(Keep::First, Faults { lax: true, ..Faults::default() }).await;
    let ended = run(config(&site, Keep::First)).await;
    assert!(matches!(ended, Err(LoadError::NoCookieNeeded { .. })), "{ended:?}");
    assert_eq!(exit_code(&ended), 2);
}

#[tokio::test]
async fn the_error_names_an_unreachable_service() {
    let site = site(Keep::First, Faults::default()).await;
    // Port 9, discard: nothing listens there.
    let nowhere: crate::address::Url = "http://127.0.0.1:9".parse().unwrap();
    let targets = vec![site.frontends[0].parse().unwrap(), nowhere.clone()];
    for config in [
        Config { targets, ..config(&site, Keep::First) },
        Config { results: nowhere, ..config(&site, Keep::First) },
    ] {
        let ended = run(config).await;
        assert!(
            ended.as_ref().is_err_and(|e| e.to_string().starts_with("http://127.0.0.1:9: ")),
            "{ended:?}"
        );
        assert_eq!(exit_code(&ended), 2);
    }
}

#[tokio::test]
async fn the_error_names_an_unknown_poll() {
    let site = site(Keep::First, Faults::default()).await;
    let ended = run(Config { poll: "birds".parse().unwrap(), ..config(&site, Keep::First) }).await;
    assert!(
        ended.as_ref().is_err_and(|e| e.to_string().contains("/polls/birds/results.json: 404")),
        "{ended:?}"
    );
    assert_eq!(exit_code(&ended), 2);
}

#[tokio::test]
async fn a_public_host_is_a_usage_error() {
    let site = site(Keep::First, Faults::default()).await;
    let foreign: crate::address::Url = "http://203.0.113.7:80".parse().unwrap();
    for config in [
        Config { targets: vec![foreign.clone()], ..config(&site, Keep::First) },
        Config { results: foreign, ..config(&site, Keep::First) },
    ] {
        let ended = run(config).await;
        assert!(matches!(ended, Err(LoadError::Usage(_))), "{ended:?}");
        assert_eq!(exit_code(&ended), 64);
    }
}

#[tokio::test]
async fn the_report_is_one_line_with_the_documented_fields() {
    let site = site(Keep::First, Faults::default()).await;
    let json = check(&site, Keep::First).await.0.to_json();
    assert_eq!(json.lines().count(), 1);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    for field in
        ["acked", "unknown", "refused", "votes_per_second", "p50_ms", "p99_ms", "seconds", "drain_seconds"]
    {
        assert!(report[field].is_number(), "{field} in {json}");
    }
    for field in ["voters", "double_votes", "seed"] {
        assert!(report[field].is_u64(), "{field} in {json}");
    }
    assert_eq!(report["expected"], report["tally"]);
    assert_eq!((&report["exact"], &report["expected"]["cats"].is_u64()), (&true.into(), &true));
}
