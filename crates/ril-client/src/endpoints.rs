//! Which server a request goes to.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ClientError;

/// How long a server that failed is passed over while another one works.
const REST: Duration = Duration::from_secs(5);
/// The same for one that asks for a pause.
const LONGEST_REST: Duration = Duration::from_secs(24 * 3600);

/// The servers of one model.
pub(crate) struct Endpoints {
    /// With `/v1`, without a slash at the end.
    bases: Vec<String>,
    state: Mutex<Vec<State>>,
}

#[derive(Clone, Default)]
struct State {
    in_flight: usize,
    /// When the newest request began, as a number in their order; idle servers take turns by it.
    newest: u64,
    rests_until: Option<Instant>,
}

impl Endpoints {
    pub fn new(urls: &[String]) -> Result<Self, ClientError> {
        let bases = urls.iter().map(|url| base(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { state: Mutex::new(vec![State::default(); bases.len()]), bases })
    }

    /// Counts are whole between any two calls, so that a panic elsewhere does not spoil them.
    fn state(&self) -> MutexGuard<'_, Vec<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// The server below which this address stands; the longest, where one stands below another.
    pub fn base_of(&self, url: &str) -> Result<&str, ClientError> {
        let is_below = |base: &&str| url.strip_prefix(*base).is_some_and(|path| path.starts_with('/'));
        let unknown = || ClientError::Request(format!("none of the servers stands at {}", without_credentials(url)));
        self.bases.iter().map(String::as_str).filter(is_below).max_by_key(|base| base.len()).ok_or_else(unknown)
    }

    /// Whether some server is not resting.
    pub fn has_awake(&self) -> bool {
        let now = Instant::now();
        self.state().iter().any(|s| s.rests_until.is_none_or(|until| until <= now))
    }

    /// The server that is not resting and has the fewest requests under way.
    pub fn begin(&self) -> Lease<'_> {
        let now = Instant::now();
        let mut state = self.state();
        let rests = |s: &State| s.rests_until.is_some_and(|until| until > now);
        let order = |i: &usize| (rests(&state[*i]), state[*i].in_flight, state[*i].newest);
        let index = (0..state.len()).min_by_key(order).expect("a client has at least one server (validated)");
        state[index].in_flight += 1;
        state[index].newest = 1 + state.iter().map(|s| s.newest).max().unwrap_or_default();
        Lease { endpoints: self, index }
    }
}

/// A request under way to one server.
pub(crate) struct Lease<'a> {
    endpoints: &'a Endpoints,
    index: usize,
}

impl Lease<'_> {
    pub fn base(&self) -> &str {
        &self.endpoints.bases[self.index]
    }

    /// Others are asked first for a while, or for as long as the server asks.
    pub fn failed(&self, asked: Option<Duration>) {
        let rest = asked.unwrap_or_default().clamp(REST, LONGEST_REST);
        self.endpoints.state()[self.index].rests_until = Some(Instant::now() + rest);
    }

    pub fn worked(&self) {
        self.endpoints.state()[self.index].rests_until = None;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.endpoints.state()[self.index].in_flight -= 1;
    }
}

/// The address below which the paths of the protocol stand.
fn base(url: &str) -> Result<String, ClientError> {
    let refuse = |why: &str| Err(ClientError::Config(format!("base_urls: {why}: {}", without_credentials(url))));
    let trimmed = url.trim().trim_end_matches('/');
    let Some((scheme @ ("http" | "https"), rest)) = trimmed.split_once("://") else {
        return refuse("expected an address that starts with http:// or https://");
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return refuse("a key belongs into the environment (api_key_env), not into an address");
    }
    if authority.is_empty() || rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return refuse("expected scheme, host and path");
    }
    let path = if path.is_empty() { "v1" } else { path };
    Ok(format!("{scheme}://{authority}/{path}"))
}

fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_v1() {
        for (url, expected) in [
            ("http://localhost:8000", "http://localhost:8000/v1"),
            ("http://localhost:8000/", "http://localhost:8000/v1"),
            (" https://host/v1/ ", "https://host/v1"),
            ("https://host/openai/v1", "https://host/openai/v1"),
        ] {
            assert_eq!(base(url).unwrap(), expected);
        }
        for url in ["localhost:8000", "ftp://host", "http://", "http://host/v1?key=1", "http://a b"] {
            assert!(base(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_key_in_an_address_is_refused_and_not_repeated() {
        let error = base("http://user:secret@host/v1").unwrap_err().to_string();
        assert!(error.contains("...@host") && !error.contains("secret"), "{error}");
        let error = base("http://host/v1?api_key=secret").unwrap_err().to_string();
        assert!(error.contains("http://host/v1") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_server_behind_an_address_is_one_of_ours() {
        let urls = ["http://a:80", "http://a:8000", "http://b/v1", "http://b/v1/chat"].map(String::from);
        let endpoints = Endpoints::new(&urls).unwrap();
        for (url, expected) in [
            ("http://a:80/v1/chat/completions", "http://a:80/v1"),
            ("http://a:8000/v1/models", "http://a:8000/v1"),
            ("http://b/v1/models", "http://b/v1"),
            ("http://b/v1/chat/completions", "http://b/v1/chat"),
        ] {
            assert_eq!(endpoints.base_of(url).unwrap(), expected);
        }
        for url in ["http://a:80/", "http://a:80/v10/models", "http://c/v1/models", "http://a:80"] {
            assert!(endpoints.base_of(url).is_err(), "{url}");
        }
        let error = endpoints.base_of("http://user:secret@c/v1/models").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn the_least_busy_server_is_next_and_idle_ones_take_turns() {
        let endpoints = Endpoints::new(&["http://a".into(), "http://b".into(), "http://c".into()]).unwrap();
        let turns: Vec<String> = (0..6).map(|_| endpoints.begin().base().to_owned()).collect();
        assert_eq!(turns[..3], turns[3..]);
        let first = endpoints.begin();
        let second = endpoints.begin();
        let third = endpoints.begin();
        let mut names = [first.base(), second.base(), third.base()];
        names.sort_unstable();
        assert_eq!(names, ["http://a/v1", "http://b/v1", "http://c/v1"]);
        let freed = second.base().to_owned();
        drop(second);
        assert_eq!(endpoints.begin().base(), freed);
    }

    #[test]
    fn a_server_that_failed_rests_while_another_works() {
        let endpoints = Endpoints::new(&["http://a".into(), "http://b".into()]).unwrap();
        endpoints.begin().failed(None);
        assert!(endpoints.has_awake());
        assert!((0..4).all(|_| endpoints.begin().base() == "http://b/v1"));
        endpoints.begin().failed(Some(Duration::from_secs(60)));
        assert!(!endpoints.has_awake());
        // All rest: the choice is as before.
        let turns: Vec<String> = (0..2).map(|_| endpoints.begin().base().to_owned()).collect();
        assert_ne!(turns[0], turns[1]);
    }
}
