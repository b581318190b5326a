use super::*;

const OPTIONS: &str = r#"options = [{ slug = "a", label = "A" }, { slug = "b", label = "B" }]"#;

fn error(body: &str) -> String {
    Polls::from_toml("polls.toml", body).unwrap_err().to_string()
}

#[test]
fn the_example_is_the_poll_in_the_documentation() {
    let file = r#"
        [[poll]]
        slug = "pets"
        title = "Cats or dogs?"
        options = [{ slug = "cats", label = "Cats" }, { slug = "dogs", label = "Dogs" }]
    "#;
    assert_eq!(Polls::from_toml("polls.toml", file).unwrap(), Polls::example());
}

#[test]
fn the_polls_file_of_the_documentation_is_valid() {
    let polls = Polls::from_toml("docs/polls.toml", include_str!("../../../docs/polls.toml")).unwrap();
    assert_eq!(polls.get("snack").map(|poll| poll.keep), Some(Keep::Last));
}

#[test]
fn the_polls_file_of_the_deployment_is_valid() {
    let polls = Polls::from_toml("polls.toml", include_str!("../../../deploy/polls.toml")).unwrap();
    assert_eq!(polls, Polls::example());
}

#[test]
fn an_unknown_field_is_reported_with_its_poll() {
    let e = error(&format!("[[poll]]\nslug = \"pets\"\ntitle = \"?\"\nopen_at = 1\n{OPTIONS}"));
    assert!(e.contains("polls.toml: poll \"pets\"") && e.contains("open_at"), "{e}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let e = error(&format!(
        "[[poll]]\nslug = \"P\"\ntitle = \"\"\nopens_at = 2027-01-02T00:00:00Z\ncloses_at = \"2027-01-01T00:00:00Z\"\n{OPTIONS}"
    ));
    for field in ["field slug", "field title", "field closes_at"] {
        assert!(e.contains(field), "{field} in {e}");
    }
}

#[test]
fn a_slug_that_is_used_twice_is_refused() {
    let poll = format!("[[poll]]\nslug = \"pets\"\ntitle = \"?\"\n{OPTIONS}\n");
    assert!(error(&format!("{poll}{poll}")).contains("another poll has this slug"));
}

#[test]
fn the_number_of_options_is_bounded() {
    let e = error("[[poll]]\nslug = \"p\"\ntitle = \"?\"\noptions = [{ slug = \"a\", label = \"A\" }]");
    assert!(e.contains("give 2 to 64"), "{e}");
}

#[test]
fn a_time_without_a_zone_is_refused() {
    let e =
        error(&format!("[[poll]]\nslug = \"p\"\ntitle = \"?\"\nopens_at = 2027-01-02T00:00:00\n{OPTIONS}"));
    assert!(e.contains("field opens_at"), "{e}");
}

#[test]
fn a_poll_is_open_from_opens_at_to_just_before_closes_at() {
    let mut poll = Polls::example().get("pets").unwrap().clone();
    let at = |s| Timestamp::MIN.saturating_add(s);
    (poll.opens_at, poll.closes_at) = (Some(at(10)), Some(at(20)));
    assert_eq!(poll.phase(at(9)), Phase::NotYetOpen);
    assert_eq!((poll.phase(at(10)), poll.phase(at(19))), (Phase::Open, Phase::Open));
    assert_eq!(poll.phase(at(20)), Phase::Closed);
}
