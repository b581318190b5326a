//! Postgres gives each test a database, and keeps its data over a restart.

use std::time::Duration;

use vote_testkit::{Postgres, TcpProxy};

#[test]
fn databases_are_separate() {
    let postgres = Postgres::shared();
    let (cats, dogs) = (postgres.database(), postgres.database());
    postgres.psql(&cats, "CREATE TABLE only_here (n int)");

    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(postgres.psql(&cats, tables), "1");
    assert_eq!(postgres.psql(&dogs, tables), "0");
}

#[test]
fn it_has_the_settings_that_the_program_under_test_requires() {
    let postgres = Postgres::shared();
    let show = |name: &str| postgres.psql("postgres", &format!("SHOW {name}"));

    assert_eq!((show("fsync"), show("synchronous_commit")), ("on".into(), "on".into()));
    assert_eq!((show("max_connections"), show("shared_buffers")), ("200".into(), "128MB".into()));
    assert_eq!((show("server_encoding"), show("lc_collate")), ("UTF8".into(), "C".into()));
}

#[test]
fn rows_survive_every_restart() {
    let postgres = Postgres::start_with(&[("fsync", "off")]);
    let url = postgres.database();
    assert_eq!(postgres.psql(&url, "SHOW fsync"), "off");
    postgres.psql(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)");

    postgres.restart_immediate();
    assert_eq!(postgres.psql(&url, "SELECT n, n * 10 FROM t ORDER BY n"), "1|10\n2|20");

    postgres.stop();
    postgres.restart();
    assert_eq!(postgres.psql(&url, "SELECT count(*) FROM t"), "2");
}

#[test]
#[should_panic(expected = "relation \"nosuch\" does not exist")]
fn an_error_is_a_panic() {
    Postgres::shared().psql("postgres", "SELECT * FROM nosuch; SELECT 1");
}

#[test]
#[should_panic(expected = "unrecognized configuration parameter")]
fn an_invalid_setting_is_a_panic_with_the_log() {
    Postgres::start_with(&[("nosuch", "yes")]);
}

#[test]
fn a_standby_that_was_cut_off_is_promoted_with_only_what_it_received() {
    let primary = Postgres::start();
    let link = TcpProxy::to(primary.port());
    let standby = primary.standby("second", link.port(), &[]);
    primary.psql("postgres", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    primary.wait_for_standby(&standby);
    link.cut();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    primary.stop_immediate();

    standby.promote();

    assert_eq!(standby.psql("postgres", "INSERT INTO t VALUES (3); SELECT n FROM t ORDER BY n"), "1\n3");
}

#[test]
fn a_commit_waits_for_a_synchronous_standby() {
    let primary = Postgres::start();
    let link = TcpProxy::to(primary.port());
    let standby = primary.standby("second", link.port(), &[]);
    primary.psql("postgres", "CREATE TABLE t (n int)");
    primary.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'second'");
    primary.psql("postgres", "SELECT pg_reload_conf()");
    link.cut();
    let count = || primary.psql("postgres", "SELECT count(*) FROM t");

    std::thread::scope(|scope| {
        let commit = scope.spawn(|| primary.psql("postgres", "INSERT INTO t VALUES (1)"));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!commit.is_finished() && count() == "0");

        link.heal();
        commit.join().unwrap();
    });
    assert_eq!(count(), "1");
    primary.wait_for_standby(&standby);
}
