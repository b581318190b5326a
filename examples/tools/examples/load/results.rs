//! Reading of a poll's results from the results service.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;
use vote_core::{OptionSlug, PollSlug};
use vote_tools::Link;

use crate::{address::Host, cast::excerpt, error::LoadError};

/// Votes by option, in the order in which the results show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) options: Vec<OptionSlug>,
    pub(crate) votes: Vec<u64>,
}

impl Tally {
    /// Returns the votes added since an earlier tally, by option.
    ///
    /// # Errors
    /// Fails if the options have changed; the text names both lists.
    pub(crate) fn since(&self, start: &Self) -> Result<Vec<i64>, String> {
        if self.options != start.options {
            return Err(format!("the options changed from {:?} to {:?}", start.options, self.options));
        }
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(self.votes.iter().zip(&start.votes).map(|(now, then)| signed(*now) - signed(*then)).collect())
    }

    pub(crate) fn total(&self) -> u64 {
        self.votes.iter().sum()
    }
}

/// The fields of `results.json` that are needed here.
#[derive(Debug, Deserialize)]
struct Document {
    total: u64,
    options: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    option: OptionSlug,
    votes: u64,
}

/// Reader of the results of one poll.
#[derive(Debug)]
pub(crate) struct Results {
    host: Arc<Host>,
    link: Link,
    path: String,
}

impl Results {
    pub(crate) fn new(host: Arc<Host>, poll: PollSlug, request_timeout: Duration) -> Self {
        Self {
            link: host.link(request_timeout),
            host,
            path: format!("/polls/{}/results.json", poll.as_str()),
        }
    }

    /// Reads the current tally.
    ///
    /// # Errors
    /// Fails if the service does not answer, does not have the poll, or answers with something other than results.
    pub(crate) async fn read(&mut self) -> Result<Tally, LoadError> {
        let path = self.path.parse::<Uri>().map_err(|e| self.error(e.to_string()))?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path;
        let answer = self.link.send(request).await.map_err(|e| LoadError::Unreachable {
            url: self.host.url.clone(),
            what: "results service",
            why: e.into_why(),
        })?;
        match answer.status {
            StatusCode::OK => parse(self.link.body()).map_err(|why| self.error(why)),
            StatusCode::NOT_FOUND => Err(self.error(format!(
                "404: {}; check that the poll is in polls.toml and that a worker has registered it",
                excerpt(self.link.body())
            ))),
            status => Err(self.error(format!("{status}: {}", excerpt(self.link.body())))),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn error(&self, why: String) -> LoadError {
        LoadError::Results { url: self.host().url.clone(), path: self.path.clone(), why }
    }
}

fn parse(body: &[u8]) -> Result<Tally, String> {
    let document: Document = serde_json::from_slice(body).map_err(|e| {
        format!(
            "not the results of a poll: {e}; \
             check that the poll shows its results while it is open (results = \"live\")"
        )
    })?;
    let (options, votes): (Vec<_>, Vec<_>) =
        document.options.into_iter().map(|row| (row.option, row.votes)).unzip();
    let tally = Tally { options, votes };
    if !vote_core::poll::OPTIONS.contains(&tally.options.len()) {
        return Err(format!("invalid number of options {}: a poll has 2 to 64", tally.options.len()));
    }
    if tally.total() != document.total {
        return Err(format!(
            "the total is {}, but the options add up to {}: the results service contradicts itself",
            document.total,
            tally.total()
        ));
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let json = r#"{"poll": "pets", "title": "?", "status": "provisional", "total": 3, "updated_at": "now",
            "options": [{"option": "cats", "label": "Cats", "votes": 2, "percent": 66.7},
                        {"option": "dogs", "label": "Dogs", "votes": 1, "percent": 33.3}]}"#;
        let tally = parse(json.as_bytes()).unwrap();
        assert_eq!(tally.votes, [2, 1]);
        assert_eq!(tally.options.iter().map(|o| o.as_str()).collect::<Vec<_>>(), ["cats", "dogs"]);
    }

    #[test]
    fn a_total_that_is_not_the_sum_is_an_error() {
        let json = r#"{"total": 4, "options": [{"option": "a", "votes": 2}, {"option": "b", "votes": 1}]}"#;
        assert!(parse(json.as_bytes()).unwrap_err().contains("contradicts itself"));
    }

    #[test]
    fn the_error_for_hidden_results_says_what_to_set() {
        let json = r#"{"total": null, "options": [{"option": "a"}, {"option": "b"}]}"#;
        assert!(parse(json.as_bytes()).unwrap_err().contains("while it is open"));
    }

    #[test]
    fn the_difference_may_be_negative_but_needs_the_same_options() {
        let tally = |slugs: [&str; 2], votes: [u64; 2]| Tally {
            options: slugs.iter().map(|slug| slug.parse().unwrap()).collect(),
            votes: votes.to_vec(),
        };
        let start = tally(["a", "b"], [5, 5]);
        assert_eq!(tally(["a", "b"], [4, 7]).since(&start), Ok(vec![-1, 2]));
        assert!(tally(["a", "c"], [4, 7]).since(&start).is_err());
    }
}
