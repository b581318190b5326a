//! Redis is durable by default, and keeps its data over a restart.

use std::time::Duration;

use vote_testkit::Redis;

#[test]
fn a_key_survives_kill9_and_restart() {
    let redis = Redis::start();
    let (url, first) = (redis.url(), redis.pid());
    redis.cli(&["SET", "cats", "1"]);

    redis.kill9();
    redis.restart();

    assert_eq!(redis.cli(&["GET", "cats"]), "1");
    assert_eq!(redis.url(), url);
    assert_ne!(redis.pid(), first);
}

#[test]
fn it_answers_on_its_port_and_its_socket() {
    let redis = Redis::shared();
    let port = redis.port().to_string();

    assert_eq!(redis.cli(&["CONFIG", "GET", "port"]), format!("port\n{port}"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", redis.port())).is_ok());
    assert!(std::path::Path::new(redis.socket_url().strip_prefix("redis+unix://").unwrap()).exists());
}

#[test]
fn it_is_durable_by_default() {
    let durable = Redis::shared();
    let volatile = Redis::start_with(&[("appendonly", "no"), ("maxmemory", "10mb"), ("save", "3600 1")]);

    for (setting, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
    ] {
        assert_eq!(durable.cli(&["CONFIG", "GET", setting]), format!("{setting}\n{value}"));
    }
    assert_eq!(volatile.cli(&["CONFIG", "GET", "appendonly"]), "appendonly\nno");
    assert_eq!(volatile.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n10485760");
    assert_eq!(volatile.cli(&["CONFIG", "GET", "save"]), "save\n3600 1");
}

#[test]
fn a_frozen_server_answers_once_it_is_resumed() {
    let redis = Redis::start();
    redis.freeze();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| redis.cli(&["PING"]));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!answer.is_finished());

        redis.thaw();

        assert_eq!(answer.join().unwrap(), "PONG");
    });
}

#[test]
#[should_panic(expected = "ERR unknown command")]
fn an_error_reply_is_a_panic() {
    Redis::shared().cli(&["NOSUCH"]);
}

#[test]
#[should_panic(expected = "Bad directive")]
fn an_invalid_setting_is_a_panic_with_the_log() {
    Redis::start_with(&[("nosuch", "yes")]);
}

#[test]
fn prefixes_are_unique() {
    assert_ne!(Redis::unique_prefix(), Redis::unique_prefix());
}
