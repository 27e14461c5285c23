//! A judge behind a server: time beside the ideal, and memory over many kept verdicts.
//!
//!     cargo bench --workspace --bench http_judge
//!
//! The server sleeps 20 ms for each answer. The ideal time of 1,000 samples at 16 at once is 1000 / 16 * 20 ms, rounded up to
//! whole turns: 63 turns, 1.26 s. Each round of the memory table keeps 10,000 further verdicts of 400 bytes, with a server that
//! answers at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ril_client::{ChatClient, ChatRequest, ClientConfig};
use ril_reward::{AnswerStore, HttpJudge, Judge, PromptTemplate, Sample, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SAMPLES: usize = 1_000;
const AT_ONCE: usize = 16;
const DELAY: Duration = Duration::from_millis(20);

/// Answers every request on kept connections after a delay; wiremock would record each request and so grow.
async fn serve(listener: TcpListener, delay: Duration) {
    let reason = "The response states the ground truth in other words. ".repeat(6);
    let text = format!("{reason}<answer>1</answer>");
    let body = format!(r#"{{"choices":[{{"index":0,"message":{{"content":"{text}"}},"finish_reason":"stop"}}]}}"#);
    let answer = Arc::new(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let (mut read, mut buffer) = (Vec::new(), [0; 65_536]);
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                read.extend_from_slice(&buffer[..count]);
                if is_whole(&read) {
                    read.clear();
                    tokio::time::sleep(delay).await;
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Whether the head and as many bytes as it says are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .to_ascii_lowercase()
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.lines().next().and_then(|value| value.trim().parse::<usize>().ok()));
    body.len() >= length.unwrap_or(0)
}

fn judge(runtime: &tokio::runtime::Runtime, delay: Duration) -> HttpJudge {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    runtime.spawn(serve(listener, delay));
    let config = ClientConfig { max_in_flight: AT_ONCE, ..ClientConfig::new([url]) };
    let client = ChatClient::new(config).expect("a good configuration");
    HttpJudge::new(client, ChatRequest::new("judge", vec![]), PromptTemplate::judge())
}

/// Resident memory of this process, MiB; 0 where `/proc` is missing.
fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn judge_range(judge: &HttpJudge, range: std::ops::Range<usize>) {
    let texts: Vec<String> = range.map(|i| format!("It is number {i}.")).collect();
    let samples: Vec<Sample<'_>> = texts.iter().map(|text| Sample::new("Which number?", "a number", text)).collect();
    let verdicts = judge.judge(&samples).expect("the server is there");
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Correct));
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let folder = tempfile::tempdir().expect("a folder");
    let open = |name: &str| Arc::new(AnswerStore::open(folder.path().join(name)).expect("opened"));

    let ideal = DELAY * SAMPLES.div_ceil(AT_ONCE) as u32;
    println!("{SAMPLES} samples, {DELAY:?} a call, {AT_ONCE} at once, verdicts kept on disk; ideal {ideal:?}");
    for round in 0..5 {
        let judge = judge(&runtime, DELAY).with_store(open(&format!("time-{round}.redb")));
        let started = Instant::now();
        judge_range(&judge, 0..SAMPLES);
        let taken = started.elapsed();
        println!("  {taken:.3?}, {:.3} of the ideal", taken.as_secs_f64() / ideal.as_secs_f64());
    }

    println!("verdicts kept, resident memory, file");
    let judge = judge(&runtime, Duration::ZERO).with_store(open("memory.redb"));
    for ten_thousands in 1..=10 {
        judge_range(&judge, (ten_thousands - 1) * 10_000..ten_thousands * 10_000);
        let file = std::fs::metadata(folder.path().join("memory.redb")).map_or(0, |data| data.len());
        println!("  {:>7}  {:>6.1} MiB  {:>6.1} MiB", ten_thousands * 10_000, resident_mib(), file as f64 / 1048576.0);
    }
}
