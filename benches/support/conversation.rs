//! One long conversation, and pages of it.

use std::time::Instant;

use super::{Halley, Holding, Http, Latencies};

/// Messages of a page.
pub(crate) const PAGE: usize = 50;

/// Chance that is the same in every run.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(88_172_645_463_325_252)
    }
}

impl Random {
    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("it is below")
    }
}

/// A request with so many messages from `bench` to `user0`.
pub(crate) fn batch(server: &Halley, body: &str, messages: usize) -> String {
    let item = format!("{{\"from\":\"bench\",\"to\":\"user0\",\"body\":{body}}}");
    let items = format!("[{}]", vec![item; messages].join(","));
    server.request("POST", "/v1/messages", &items)
}

/// Pushes a batch, of which no message may fail; again at once where the server is busy, so that what is measured is what
/// it takes in the long run.
pub(crate) async fn push_batch(backend: &mut Http, batch: &[u8]) {
    let reply = loop {
        backend.send_bytes(batch).await;
        let reply = backend.reply().await;
        if reply.status != 503 || !reply.text().contains("\"busy\"") {
            break reply.expect(200);
        }
    };
    assert!(!reply.text().contains("\"error\""), "{reply:?}");
}

/// Reads pages of that conversation before random ids, one after the other, each whole.
pub(crate) async fn pages(
    server: &Halley,
    random: &mut Random,
    count: usize,
    pages: usize,
) -> Latencies {
    let mut client = server.client().await;
    let token = server.token("user0");
    let mut times = Latencies::default();
    for _ in 0..pages {
        let before = PAGE + 1 + random.below(count - PAGE);
        let request = format!(
            "GET /v1/direct/bench/messages?before={before}&limit={PAGE} HTTP/1.1\r\nhost: bench\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        let sent = Instant::now();
        let reply = client.ask(&request).await;
        times.add(sent.elapsed());
        let reply = reply.expect(200);
        assert_eq!(reply.text().matches("\"id\":").count(), PAGE);
    }
    times
}
