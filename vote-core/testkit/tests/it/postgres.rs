//! Postgres gives each test a database, and comes back with its data.

use vote_testkit::Postgres;

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
fn it_is_set_up_as_the_program_under_test_demands() {
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
fn a_wrong_setting_is_a_panic_with_the_log() {
    Postgres::start_with(&[("nosuch", "yes")]);
}
