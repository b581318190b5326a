//! Paths, methods and headers.

use http::StatusCode;
use vote_core::Polls;

use crate::world::{World, vote};

async fn world() -> World {
    let world = World::new().await;
    world.counted([vote(1, 0, 1)]).await;
    world
}

const ALL: [&str; 7] = [
    "/polls/pets",
    "/polls/pets/results.json",
    "/polls/pets/results.csv",
    "/polls/pets/events",
    "/status",
    "/status.json",
    "/live.js",
];

#[tokio::test]
async fn unknown_paths_and_polls_are_not_found() {
    let world = world().await;
    for path in [
        "/nothing",
        "/polls/none",
        "/polls/none/results.json",
        "/polls/none/events",
        "/polls/PETS",
        "/polls/%70ets",
    ] {
        assert_eq!(world.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let answer = world.get("/polls/none/results.json").await;
    assert_eq!(answer.json()["error"], "not-found", "the errors of JSON routes are JSON");
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let world = world().await;
    for path in ALL.into_iter().chain(["/", "/receipts/x"]) {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = world.send(method, path, &[]).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn head_returns_the_headers_of_get_without_the_body() {
    let world = world().await;
    for path in ALL.into_iter().filter(|path| !path.ends_with("events")) {
        let (get, head) = (world.get(path).await, world.send("HEAD", path, &[]).await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "cache-control", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn the_root_redirects_to_the_only_poll() {
    let answer = world().await.get("/").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/polls/pets"));
}

#[tokio::test]
async fn several_polls_are_listed() {
    let poll = |slug: &str, title: &str| {
        format!(
            "[[poll]]\nslug = \"{slug}\"\ntitle = \"{title}\"\n\
             options = [{{ slug = \"a\", label = \"A\" }}, {{ slug = \"b\", label = \"B\" }}]\n"
        )
    };
    let text = format!("{}{}", poll("one", "First <b>?"), poll("two", "Second?"));
    let world = World::of(Polls::from_toml("polls.toml", &text).unwrap()).await;

    let page = world.get("/").await;

    assert_eq!(page.status, StatusCode::OK);
    for part in ["<a href=\"/polls/one\">First &lt;b&gt;?</a>", "<a href=\"/polls/two\">Second?</a>"] {
        assert!(page.body.contains(part), "{part} in {}", page.body);
    }
}

#[tokio::test]
async fn the_script_is_served_as_javascript() {
    let answer = world().await.get("/live.js").await;
    assert!(answer.header("content-type").starts_with("text/javascript"));
    assert!(answer.body.contains("EventSource"));
}
