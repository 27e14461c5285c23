use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ril_client::{ChatClient, ChatMessage, ChatRequest, ChatRole, ClientError};

use super::store::{AnswerKey, AnswerStore, answer_key};
use super::{Judge, PromptTemplate, Verdict, parse_verdict};
use crate::{RewardError, Sample};

/// Said to a judge whose text holds no verdict.
const AGAIN: &str = "Write your verdict and nothing else: <answer>1</answer> if the response is right, <answer>0</answer> if it \
                     is wrong.";

/// Verdicts on the way are written to the store when there are so many, or at the first that comes after so long.
const WRITE_AT: (usize, Duration) = (256, Duration::from_secs(1));

/// A language model behind an OpenAI-compatible server as the judge.
///
/// Each sample is one request with a [`PromptTemplate`], as many at once as the client allows. The text is read by
/// [`parse_verdict`]; where it holds no verdict the judge is asked **once** more, in the same conversation, for the verdict
/// alone. What cannot be read then is [`Verdict::Unparsed`] with both texts. A request that keeps failing is an error, never a
/// verdict.
///
/// With a store, what is known is not asked, and verdicts are kept while others are still on their way, those of a second together:
/// after a failure or a kill, the same call asks for the rest. Texts without a verdict are not kept.
///
/// Source of the setting: RIL, arXiv 2510.19307, section 4 and Fig. 4 (a text-only judge of 32 B weights).
///
/// ```no_run
/// use ril_client::{ChatClient, ChatRequest, ClientConfig};
/// use ril_reward::{AnswerStore, HttpJudge, Judge, PromptTemplate, Sample};
///
/// let client = ChatClient::new(ClientConfig::new(["http://localhost:8000"]))?;
/// let mut request = ChatRequest::new("Qwen2.5-32B-Instruct", vec![]);
/// (request.temperature, request.max_tokens) = (Some(0.0), Some(512));
/// let judge = HttpJudge::new(client, request, PromptTemplate::judge())
///     .with_store(AnswerStore::open("judge.redb")?.into());
/// let verdicts = judge.judge(&[Sample::new("1 + 1?", "2", "It is two.")])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HttpJudge {
    client: ChatClient,
    request: ChatRequest,
    template: PromptTemplate,
    store: Option<Arc<AnswerStore>>,
    /// Everything beside the sample that decides what the judge writes.
    identity: String,
}

impl HttpJudge {
    /// A judge; `request` holds model and settings, its messages are made from `template`.
    pub fn new(client: ChatClient, request: ChatRequest, template: PromptTemplate) -> Self {
        let request = ChatRequest { messages: Vec::new(), n: None, ..request };
        let settings = serde_json::to_string(&request).expect("a request of plain fields is JSON");
        let identity = format!("{settings}\n{}\n{AGAIN}", template.text());
        Self { client, request, template, store: None, identity }
    }

    /// The same judge, which keeps what it writes.
    #[must_use]
    pub fn with_store(self, store: Arc<AnswerStore>) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The client within.
    pub fn client(&self) -> &ChatClient {
        &self.client
    }

    /// Asks once, and once more where there is no verdict: the last text, and its verdict.
    fn ask(&self, client: &ChatClient, sample: &Sample<'_>) -> Result<(String, Verdict), ClientError> {
        let messages = vec![ChatMessage::user(self.template.render(sample))];
        let mut request = ChatRequest { messages, ..self.request.clone() };
        let (first, verdict) = self.text(client, &request)?;
        if is_read(&verdict) {
            return Ok((first, verdict));
        }
        // Templates of some models refuse an empty turn.
        let said = if first.trim().is_empty() { "(nothing)" } else { first.as_str() };
        request.messages.push(ChatMessage::text(ChatRole::Assistant, said));
        request.messages.push(ChatMessage::user(AGAIN));
        let (second, verdict) = self.text(client, &request)?;
        let verdict = match verdict {
            // Not read again: two halves of a tag in two texts are no verdict.
            Verdict::Unparsed(second) => Verdict::Unparsed(format!("{first}\n{second}")),
            verdict => verdict,
        };
        Ok((second, verdict))
    }

    /// What the judge writes, and the verdict in it. In a text that was cut only a verdict at its very end counts: one further up
    /// may be a quotation of the response.
    fn text(&self, client: &ChatClient, request: &ChatRequest) -> Result<(String, Verdict), ClientError> {
        let response = match client.chat(request) {
            // It has judged nothing: no verdict, as with prose.
            Err(error @ ClientError::NoText { .. }) => {
                return Ok((String::new(), Verdict::Unparsed(error.to_string())));
            }
            response => response?,
        };
        let Some(choice) = response.choices.first() else { return Ok((String::new(), parse_verdict(""))) };
        let text = choice.text().to_owned();
        let is_cut = choice.finish_reason.is_cut() && !text.trim_end().ends_with("</answer>");
        let verdict = if is_cut { Verdict::Unparsed(text.clone()) } else { parse_verdict(&text) };
        Ok((text, verdict))
    }

    /// Verdicts of the texts that the store knows.
    fn known(&self, keys: &[AnswerKey]) -> Result<HashMap<AnswerKey, Verdict>, RewardError> {
        let Some(store) = &self.store else { return Ok(HashMap::new()) };
        let texts = store.get(keys)?;
        let verdicts = keys.iter().zip(texts).filter_map(|(key, text)| Some((*key, parse_verdict(&text?))));
        Ok(verdicts.filter(|(_, verdict)| is_read(verdict)).collect())
    }

    /// Asks about the samples at these places and adds the verdicts to `known`, and the texts to the store.
    fn ask_all(
        &self,
        samples: &[Sample<'_>],
        places: &[(usize, AnswerKey)],
        known: &mut HashMap<AnswerKey, Verdict>,
    ) -> Result<(), RewardError> {
        let name = || format!("judge {}", self.request.model);
        let mut writer = Writer { store: self.store.as_deref(), pending: Vec::new(), since: Instant::now() };
        let mut failure = None;
        let job = |client: &ChatClient, i: usize| self.ask(client, &samples[places[i].0]);
        self.client.parallel(places.len(), job, |i, answer| {
            let (place, key) = places[i];
            let kept = match answer {
                Ok((text, verdict)) => {
                    let kept = if is_read(&verdict) { writer.add(key, text) } else { Ok(()) };
                    known.insert(key, verdict);
                    kept
                }
                Err(error) => Err(RewardError::failed_at(name(), place, error)),
            };
            match kept {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    // Those that follow are its consequences.
                    failure.get_or_insert(error);
                    ControlFlow::Break(())
                }
            }
        });
        let written = writer.flush();
        if failure.is_none() && places.iter().any(|(_, key)| !known.contains_key(key)) {
            failure = Some(RewardError::failed(name(), ClientError::Stopped));
        }
        failure.map_or(written, Err)
    }
}

impl Judge for HttpJudge {
    fn judge(&self, samples: &[Sample<'_>]) -> Result<Vec<Verdict>, RewardError> {
        let keys: Vec<AnswerKey> = samples.iter().map(|sample| answer_key(&self.identity, sample)).collect();
        let mut verdicts = self.known(&keys)?;
        let mut seen = std::collections::HashSet::new();
        let unknown =
            keys.iter().copied().enumerate().filter(|(_, key)| !verdicts.contains_key(key) && seen.insert(*key));
        let unknown: Vec<(usize, AnswerKey)> = unknown.collect();
        self.ask_all(samples, &unknown, &mut verdicts)?;
        Ok(keys.iter().map(|key| verdicts[key].clone()).collect())
    }
}

fn is_read(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Unparsed(_))
}

/// Brings texts with a verdict to the store, several at once.
struct Writer<'a> {
    store: Option<&'a AnswerStore>,
    pending: Vec<(AnswerKey, String)>,
    since: Instant,
}

impl Writer<'_> {
    fn add(&mut self, key: AnswerKey, text: String) -> Result<(), RewardError> {
        if self.store.is_some() {
            self.pending.push((key, text));
        }
        if self.pending.len() >= WRITE_AT.0 || self.since.elapsed() >= WRITE_AT.1 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RewardError> {
        self.since = Instant::now();
        match self.store {
            Some(store) if !self.pending.is_empty() => store.insert(&std::mem::take(&mut self.pending)),
            _ => Ok(()),
        }
    }
}
