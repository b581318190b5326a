//! `certify` and `verify`: the library and the program.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use vote_core::{
    Polls, Queue, Store,
    conformance::{layout, poll},
    count::{QueueState, SealRecord},
    store::{PostgresStore, SqliteStore},
};
use vote_results::certificate::{
    Build, Certificate, CertificateStatus, CertifyError, PrivateKey, PublicKey, Request, certify, files,
    verify,
};
use vote_testkit::Postgres;

use crate::world::{World, vote};

mod verification;

// The first key pair of RFC 8032, section 7.1, in the format of OpenSSL.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                       -----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                      -----END PUBLIC KEY-----\n";
// The public key of the second pair.
const OTHER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n\
                            -----END PUBLIC KEY-----\n";

const ALL: [&str; 5] = [files::BALLOTS, files::CERTIFICATE, files::PAGE, files::SIGNATURE, files::PUBLIC_KEY];

/// A temporary folder with keys in it, and the path of a certificate to be written.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, pem) in [("key.pem", PRIVATE), ("trusted.pem", PUBLIC), ("other.pem", OTHER_PUBLIC)] {
            fs::write(dir.path().join(name), pem).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Names of the files in the folder, except keys and databases.
    fn made(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".pem") && !name.starts_with("votes.db")).collect()
    }

    fn private(&self) -> PrivateKey {
        PrivateKey::read(&self.path("key.pem")).unwrap()
    }

    async fn certify(&self, world: &World, force: bool) -> Result<Certificate, CertifyError> {
        let request = Request {
            poll: poll(),
            polls: &world.polls,
            out: &self.out(),
            force,
            build: Build { version: "1.2.3", commit: Some("abc") },
        };
        certify(&*world.store.inner, &request, &self.private()).await
    }

    fn verify(&self) -> Result<Certificate, String> {
        let key = PublicKey::read(&self.path("trusted.pem")).unwrap();
        verify(&self.out(), &key, &mut Vec::new()).map_err(|e| e.to_string())
    }

    /// Replaces a text in the certificate and signs it again, as a forger who has the key could.
    fn resign(&self, from: &str, to: &str) {
        let file = self.out().join(files::CERTIFICATE);
        let json = fs::read_to_string(&file).unwrap();
        assert!(json.contains(from), "{from} in {json}");
        let json = json.replacen(from, to, 1);
        fs::write(&file, &json).unwrap();
        fs::write(self.out().join(files::SIGNATURE), self.private().sign(json.as_bytes())).unwrap();
    }
}

/// Accepts and counts the votes of 40 voters, every fourth of whom votes twice; 30 vote for cats.
async fn fill(world: &World) {
    for voter in 0..40 {
        world.accept(vote(voter, u8::from(voter % 4 == 1), 1)).await;
        if voter % 4 == 0 {
            world.accept(vote(voter, 1, 2)).await;
        }
    }
    count(world).await;
    world.report(50, 0, QueueState::Active).await;
}

/// Counts all accepted votes, as a worker does.
async fn count(world: &World) {
    let plans = world.plans().await;
    sessions_ended(world).await;
    world.store.commit(&plans).await;
    sessions_ended(world).await;
}

/// Waits until dropped sessions have released their partitions: Postgres ends a session a moment later.
async fn sessions_ended(world: &World) {
    let mut session = world.store.inner.open_session().await.unwrap();
    let all = usize::from(layout().partitions.count());
    for _ in 0..500 {
        if session.unowned().await.unwrap().len() == all {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a dropped session still owns partitions after 10 s");
}

/// Closes the poll and seals it in the queue, as workers do.
async fn seal(world: &World) {
    let store = &world.store.inner;
    store.close_poll(poll()).await.unwrap();
    let seal = world.queue.seal(world.id, poll()).await.unwrap();
    store.record_seal(&SealRecord { queue: world.id, poll: poll(), seal }).await.unwrap();
}

/// Records all partitions as complete and makes the poll final if possible, as workers do.
async fn finish(world: &World) {
    let store = &world.store.inner;
    let mut session = store.open_session().await.unwrap();
    for partition in layout().partitions.iter() {
        let version = session.acquire(partition).await.unwrap().unwrap().version;
        session.complete(partition, version, poll()).await.unwrap();
    }
    store.finalize_poll(poll()).await.unwrap();
}

async fn final_world(store: Arc<dyn Store>) -> World {
    let world = World::with(Polls::example(), store).await;
    fill(&world).await;
    seal(&world).await;
    finish(&world).await;
    world
}

async fn sqlite(place: &Place) -> (Arc<dyn Store>, String) {
    let file = place.path("votes.db");
    (Arc::new(SqliteStore::open(&file).await.unwrap()), format!("sqlite:{}", file.display()))
}

async fn postgres() -> (Arc<dyn Store>, String) {
    let url = Postgres::shared().database();
    let store = PostgresStore::connect(&url, "vote").unwrap();
    store.migrate().await.unwrap();
    (Arc::new(store), url)
}

fn program(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vote-results"));
    let Output { status, stdout, stderr } =
        command.env_clear().args(args).envs(env.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn run_certify(place: &Place, store: &str, more: &[&str]) -> (Option<i32>, String) {
    let (out, key) = (place.text("out"), place.text("key.pem"));
    let args = ["certify", "--poll", "pets", "--out", &out, "--key", &key];
    program(&[&args[..], more].concat(), &[("VOTE_STORE", store)])
}

fn run_verify(place: &Place, key: &str) -> (Option<i32>, String) {
    program(&["verify", &place.text("out"), "--public-key", &place.text(key)], &[])
}

async fn a_poll_is_refused_until_it_is_final(place: &Place, (store, address): (Arc<dyn Store>, String)) {
    let world = World::with(Polls::example(), store).await;
    fill(&world).await;
    let (code, text) = run_certify(place, &address, &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("poll pets is not closed") && text.contains("--force"), "{text}");

    world.accept(vote(99, 0, 1)).await;
    seal(&world).await;
    let (code, text) = run_certify(place, &address, &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("{}", world.id)) && text.contains("not read to the seal"), "{text}");

    count(&world).await;
    let (code, text) = run_certify(place, &address, &[]);
    assert!(code == Some(2) && text.contains("is counted, but no worker has recorded"), "{text}");
    assert!(place.made().is_empty(), "{:?}", place.made());

    finish(&world).await;
    let (code, text) = run_certify(place, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run_verify(place, "trusted.pem");
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "ok  41 ballots, each voter once",
        "ok  in 1 queue, accepted votes = new voters + superseded + quarantined",
        "ok  in total, 51 accepted = 41 new voters + 10 superseded + 0 quarantined",
        "FINAL result of pets: Cats or dogs?",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_in_sqlite_is_certified_once_it_is_final() {
    let place = Place::new();
    let store = sqlite(&place).await;
    a_poll_is_refused_until_it_is_final(&place, store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_in_postgres_is_certified_once_it_is_final() {
    a_poll_is_refused_until_it_is_final(&Place::new(), postgres().await).await;
}

#[tokio::test]
async fn a_certificate_says_what_was_counted_by_whom_and_when() {
    let place = Place::new();
    let world = final_world(sqlite(&place).await.0).await;

    let certificate = place.certify(&world, true).await.unwrap();

    assert_eq!(place.verify(), Ok(certificate.clone()));
    assert_eq!(certificate.status, CertificateStatus::Final, "there was nothing to force");
    let votes: Vec<u64> = certificate.result.options.iter().map(|option| option.votes).collect();
    assert_eq!((certificate.result.total, votes), (40, vec![30, 10]));
    assert_eq!(
        (certificate.software.version.as_str(), certificate.software.commit.as_deref()),
        ("1.2.3", Some("abc"))
    );
    assert_eq!(certificate.created_at, certificate.audit.taken_at.to_string(), "by the store's clock");
    let final_at = world.store.inner.polls().await.unwrap()[0].final_at;
    assert_eq!(certificate.final_at, final_at.map(|at| at.to_string()));
    let total = certificate.audit.polls[0].total;
    assert_eq!((total.accepted, total.new_voters, total.superseded), (50, 40, 10));
    assert_eq!(fs::read_dir(place.out()).unwrap().count(), ALL.len());
}

#[tokio::test]
async fn a_poll_that_the_file_does_not_have_goes_by_its_slugs() {
    let place = Place::new();
    let world = final_world(sqlite(&place).await.0).await;
    let other = "[[poll]]\nslug = \"snack\"\ntitle = \"?\"\n\
                 options = [{ slug = \"a\", label = \"A\" }, { slug = \"b\", label = \"B\" }]";
    let world = World { polls: Arc::new(Polls::from_toml("polls.toml", other).unwrap()), ..world };

    let Certificate { poll, .. } = place.certify(&world, false).await.unwrap();

    assert_eq!((poll.title.as_str(), poll.options[1].label.as_str()), ("pets", "dogs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_certificate_is_valid_and_lists_what_is_outstanding() {
    let place = Place::new();
    let (store, address) = sqlite(&place).await;
    let world = World::with(Polls::example(), store).await;
    fill(&world).await;
    world.report(53, 3, QueueState::Active).await;

    let (code, text) = run_certify(&place, &address, &["--force"]);

    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("PROVISIONAL") && text.contains("poll pets is not closed"), "{text}");
    let page = fs::read_to_string(place.out().join(files::PAGE)).unwrap();
    assert!(page.contains("PROVISIONAL") && page.contains("poll pets is not closed"), "{page}");
    let (code, text) = run_verify(&place, "trusted.pem");
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("PROVISIONAL result of pets") && text.contains("poll pets is not closed"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accounting_errors_are_refused_and_a_forced_certificate_with_them_is_invalid() {
    let place = Place::new();
    let (store, address) = sqlite(&place).await;
    let world = World::with(Polls::example(), store).await;
    fill(&world).await;
    // Simulates a lost vote: the seal counts one vote more than was read.
    let store = &world.store.inner;
    store.close_poll(poll()).await.unwrap();
    let mut seal = world.queue.seal(world.id, poll()).await.unwrap();
    seal.accepted[0] += 1;
    store.record_seal(&SealRecord { queue: world.id, poll: poll(), seal }).await.unwrap();
    finish(&world).await;

    let (code, text) = run_certify(&place, &address, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("BROKEN") && place.made().is_empty(), "{text}");

    assert_eq!(run_certify(&place, &address, &["--force"]).0, Some(0));
    let (code, text) = run_verify(&place, "trusted.pem");
    assert!(code == Some(1) && text.contains("FAILED  accounting errors"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_consistent_while_votes_are_being_counted() {
    let place = Place::new();
    let (store, address) = postgres().await;
    let world = World::with(Polls::example(), store).await;
    fill(&world).await;
    for voter in 1000..1400 {
        world.accept(vote(voter, 0, 3)).await;
    }
    let plans = world.plans().await;
    assert!(plans.len() > 10, "there are too few partitions with votes");
    sessions_ended(&world).await;
    let mut session = world.store.inner.open_session().await.unwrap();
    let counting = async {
        for plan in plans {
            session.acquire(plan.partition).await.unwrap().unwrap();
            session.commit(&plan).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let certifying = tokio::task::spawn_blocking(move || {
        for _ in 0..5 {
            assert_eq!(run_certify(&place, &address, &["--force"]).0, Some(0));
            let (code, text) = run_verify(&place, "trusted.pem");
            assert_eq!(code, Some(2), "{text}");
            fs::remove_dir_all(place.out()).unwrap();
        }
    });
    let ((), done) = tokio::join!(counting, certifying);
    done.unwrap();
}

#[tokio::test]
async fn a_certificate_is_never_overwritten() {
    let place = Place::new();
    let world = final_world(sqlite(&place).await.0).await;
    fs::create_dir(place.out()).unwrap();
    fs::write(place.out().join("notes"), "x").unwrap();
    let e = place.certify(&world, false).await.unwrap_err();
    assert!(e.exit_code() == 73 && e.to_string().contains("never overwritten"), "{e}");
    fs::remove_file(place.out().join("notes")).unwrap();
    place.certify(&world, false).await.unwrap();
    assert!(place.certify(&world, false).await.is_err());
    assert_eq!(place.made(), ["out"]);
}

#[tokio::test]
async fn an_unknown_poll_and_an_unreachable_store_exit_with_69() {
    let place = Place::new();
    let world = final_world(sqlite(&place).await.0).await;
    drop(world);
    let store = format!("sqlite:{}", place.text("votes.db"));
    let (out, key) = (place.text("out"), place.text("key.pem"));
    for (poll, store) in
        [("snack", store.as_str()), ("pets", "postgres://127.0.0.1:1/votes"), ("pets", "sqlite:/none")]
    {
        let args = ["certify", "--poll", poll, "--out", &out, "--key", &key];
        let (code, text) = program(&args, &[("VOTE_STORE", store)]);
        assert_eq!(code, Some(69), "{text}");
    }
    assert!(place.made().is_empty());
}

#[test]
fn an_unusable_key_is_reported_before_the_store_is_read() {
    let place = Place::new();
    let (out, store) = (place.text("out"), "postgres://127.0.0.1:1/votes");
    for key in ["nothing.pem", "trusted.pem"] {
        let args = ["certify", "--poll", "pets", "--out", &out, "--key", &place.text(key)];
        let (code, text) = program(&args, &[("VOTE_STORE", store)]);
        assert!(
            code == Some(78) && text.contains("openssl genpkey -algorithm ed25519 -out key.pem"),
            "{text}"
        );
    }
    let (code, text) = program(&["certify", "--poll", "pets", "--out", &out], &[("VOTE_STORE", store)]);
    assert!(code == Some(78) && text.contains("openssl genpkey"), "{text}");
}
