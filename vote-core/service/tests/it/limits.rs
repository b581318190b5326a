//! Limits of what a client may use: time, bytes, connections.

use std::{
    fs::{self, File},
    process::Command,
    time::Instant,
};

use tokio::time::{sleep, timeout};
use vote_service::{Connections, Limits};

use crate::support::{GET, PATIENCE, Server, endless, hello, ms, status};

fn limits(header: u64, idle: u64) -> Limits {
    Limits { header_timeout: ms(header), idle_timeout: ms(idle), ..Limits::default() }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off() {
    let server = Server::start(hello(ms(0)), limits(200, 60_000)).await;
    let mut client = server.client().await;
    let started = Instant::now();
    let (mut read, mut write) = client.0.split();
    let trickle = async {
        for byte in GET.bytes().cycle() {
            let byte = if byte == b'\r' || byte == b'\n' { b'x' } else { byte };
            if tokio::io::AsyncWriteExt::write_all(&mut write, &[byte]).await.is_err() {
                break;
            }
            sleep(ms(20)).await;
        }
    };
    let mut rest = Vec::new();
    let closed =
        async { timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut read, &mut rest)).await };
    tokio::select! { () = trickle => {}, closed = closed => { let _ = closed.expect("the server closes in time"); } }
    let took = started.elapsed();
    assert!(took >= ms(190) && took < ms(1500), "{took:?}");
}

#[tokio::test]
async fn a_new_connection_that_sends_nothing_is_closed() {
    let server = Server::start(hello(ms(0)), limits(150, 60_000)).await;
    let took = server.client().await.closed().await;
    assert!(took >= ms(140) && took < ms(1500), "{took:?}");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let server = Server::start(hello(ms(0)), limits(100, 600)).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.send(GET).await;
        assert_eq!(status(&client.answer().await), 200);
        sleep(ms(250)).await;
    }
    let took = client.closed().await;
    assert!(took >= ms(300) && took < ms(2000), "{took:?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_timeout_and_not_before() {
    let server = Server::start(hello(ms(0)), limits(100, 600)).await;
    let mut client = server.client().await;
    for pause in [ms(0), ms(50), ms(450), ms(550)] {
        // After 300 to 600 ms it is parked.
        sleep(pause).await;
        client.send(GET).await;
        assert!(client.answer().await.ends_with("hello"));
    }
    let took = client.closed().await;
    assert!(took >= ms(590) && took < ms(2000), "{took:?}");
}

#[tokio::test]
async fn the_time_to_answer_is_not_idle_time() {
    let server = Server::start(hello(ms(450)), limits(100, 1000)).await;
    let mut client = server.client().await;
    client.send(GET).await;
    assert!(client.answer().await.ends_with("hello"));
    let took = client.closed().await;
    assert!(took >= ms(990) && took < ms(2500), "{took:?}");
}

#[tokio::test]
async fn a_head_that_trickles_in_on_a_parked_connection_is_cut_off() {
    let server = Server::start(hello(ms(0)), limits(150, 1000)).await;
    let mut client = server.client().await;
    for pause in [ms(0), ms(200)] {
        sleep(pause).await;
        client.send(GET).await;
        client.answer().await;
    }
    // It is checked every 500 ms whether there was a request: so it is parked after 1,000 ms and closed after 1,500.
    sleep(ms(1050)).await;
    client.send("GET / HT").await;
    let took = client.closed().await;
    assert!(took >= ms(140) && took < ms(1500), "{took:?}");
}

#[tokio::test]
async fn a_slow_head_is_also_cut_off_on_a_reused_connection() {
    let server = Server::start(hello(ms(0)), limits(150, 60_000)).await;
    let mut client = server.client().await;
    client.send(GET).await;
    client.answer().await;
    sleep(ms(300)).await;
    client.send("GET / HT").await;
    let took = client.closed().await;
    assert!(took >= ms(140) && took < ms(1500), "{took:?}");
}

#[tokio::test]
async fn a_slow_answer_is_not_a_slow_head() {
    let server = Server::start(hello(ms(400)), limits(100, 100)).await;
    let mut client = server.client().await;
    client.send(GET).await;
    assert_eq!(status(&client.answer().await), 200);
}

#[tokio::test]
async fn pipelined_requests_are_all_answered() {
    let server = Server::start(hello(ms(10)), limits(1000, 1000)).await;
    let mut client = server.client().await;
    client.send(&GET.repeat(3)).await;
    for _ in 0..3 {
        assert_eq!(status(&client.answer().await), 200);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let (service, mut bodies) = endless(&[b'x'; 65_536], ms(1));
    let server = Server::start(service, Limits { write_timeout: ms(200), ..Limits::default() }).await;
    let mut client = server.client().await;
    client.send(GET).await;
    let body = bodies.recv().await.unwrap();
    assert!(timeout(PATIENCE, body).await.expect("the body is dropped").is_err());
}

#[tokio::test]
async fn a_head_over_the_limit_is_answered_with_431() {
    let server = Server::start(hello(ms(0)), Limits::default()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(17 * 1024));
    assert_eq!(status(&server.ask(&large).await), 431);
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(64));
    assert_eq!(status(&server.ask(&many).await), 431);
}

#[tokio::test]
async fn connections_over_the_limit_have_to_wait() {
    let server = Server::start_with(hello(ms(0)), Limits::default(), Connections::new(1)).await;
    let mut first = server.client().await;
    first.send(GET).await;
    first.answer().await;

    let mut second = server.client().await;
    second.send(GET).await;
    assert_eq!(second.try_answer(ms(300)).await, None);

    drop(first);
    assert_eq!(status(&second.answer().await), 200);
}

#[tokio::test]
async fn the_limit_applies_to_all_threads_together_and_a_waiting_thread_keeps_no_place() {
    let connections = Connections::new(1);
    let one = Server::start_with(hello(ms(0)), Limits::default(), connections.clone()).await;
    let other = Server::start_with(hello(ms(0)), Limits::default(), connections).await;
    let mut first = one.client().await;
    first.send(GET).await;
    first.answer().await;

    let mut second = other.client().await;
    second.send(GET).await;
    assert_eq!(second.try_answer(ms(300)).await, None);
    drop(first);
    assert_eq!(status(&second.answer().await), 200);
}

/// Run by the last test in a process of its own, since the limit applies to the whole process.
#[tokio::test]
#[ignore = "needs a low limit of file descriptors"]
async fn without_file_descriptors() {
    let server = Server::start(hello(ms(0)), Limits::default()).await;
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    // Frees one descriptor for the client and none for the server's side of the connection.
    files.pop();
    let mut client = server.client().await;
    client.send(GET).await;
    let before = cpu_ticks(files.pop());
    files.push(File::open("/dev/null").unwrap());
    assert_eq!(client.try_answer(ms(500)).await, None);
    let spent = cpu_ticks(files.pop()) - before;
    assert!(spent < 20, "the server used {spent} of 50 ticks while waiting");
    drop(files);
    assert_eq!(status(&client.answer().await), 200);
}

/// Returns the processor time that this process has used, in hundredths of a second. Dropping the file frees the
/// descriptor needed here.
fn cpu_ticks(file: Option<File>) -> u64 {
    drop(file);
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn running_out_of_file_descriptors_is_survived_without_spinning() {
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 48; exec \"$0\" --ignored --exact limits::without_file_descriptors --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
