//! A stand-in for Docker's DNS over UDP. Like moby's `resolver.go`, it answers A queries for a service with all of its
//! tasks in random order, without compression, and cuts off what exceeds the size that the client accepts.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::seq::SliceRandom;

const HEADER: usize = 12;
const A: u16 = 1;
const OPT: u16 = 41;
const TRUNCATED: u8 = 0x02;

const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const REFUSED: u8 = 5;

/// How the DNS answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Answers,
    Silent,
    /// Every answer is cut off, whatever size the client accepts.
    CutsOff,
    Fails,
    KnowsNoName,
    Refuses,
}

pub(crate) struct Dns {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    names: BTreeMap<String, Vec<Ipv4Addr>>,
    mode: Mode,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // To notice the end.
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { names: BTreeMap::new(), mode: Mode::Answers }));
        let ended = Arc::new(AtomicBool::new(false));
        let (theirs, is_over) = (Arc::clone(&state), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut query = [0; 512];
            while !is_over.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut query) else { continue };
                let answer = theirs.lock().unwrap().answer(&query[..length]);
                if let Some(answer) = answer {
                    // As for any DNS over UDP, a lost answer is asked for again.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, state, ended, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, name: &str, addresses: Vec<Ipv4Addr>) {
        self.state.lock().unwrap().names.insert(name.to_owned(), addresses);
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(query)?;
        let failure = |code| Some(question.response(&[], 0, code));
        let accepted = match self.mode {
            Mode::Answers => question.accepted_size,
            Mode::CutsOff => HEADER + question.bytes.len(),
            Mode::Silent => return None,
            Mode::Fails => return failure(SERVER_FAILURE),
            Mode::KnowsNoName => return failure(NO_SUCH_NAME),
            Mode::Refuses => return failure(REFUSED),
        };
        let Some(addresses) = self.names.get(&question.name) else { return failure(NO_SUCH_NAME) };
        if question.kind != A {
            return Some(question.response(&[], 0, 0));
        }
        let mut addresses = addresses.clone();
        addresses.shuffle(&mut rand::rng());
        let fitting = (accepted - HEADER - question.bytes.len()) / question.record_size();
        let flags = if addresses.len() > fitting { TRUNCATED } else { 0 };
        addresses.truncate(fitting);
        Some(question.response(&addresses, flags, 0))
    }
}

struct Question<'a> {
    id: [u8; 2],
    name: String,
    /// The name as it is encoded.
    encoded_name: &'a [u8],
    kind: u16,
    /// The whole question as it is encoded.
    bytes: &'a [u8],
    /// Number of bytes of the answer that the client accepts.
    accepted_size: usize,
}

impl<'a> Question<'a> {
    fn parse(query: &'a [u8]) -> Option<Self> {
        let mut at = HEADER;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
            at += length;
        }
        let encoded_name = &query[HEADER..at];
        let bytes = query.get(HEADER..at + 4)?;
        // HAProxy adds one record: OPT, whose class is the size that it accepts.
        let accepted_size = match query.get(at + 4..at + 9) {
            Some([0, kind @ .., high, low]) if kind == OPT.to_be_bytes() => {
                usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => 512,
        };
        Some(Self {
            id: [query[0], query[1]],
            name: labels.join("."),
            encoded_name,
            kind: u16::from_be_bytes([query[at], query[at + 1]]),
            bytes,
            accepted_size: accepted_size.max(512),
        })
    }

    /// Size of the record of one address.
    fn record_size(&self) -> usize {
        self.encoded_name.len() + 14
    }

    fn response(&self, addresses: &[Ipv4Addr], flags: u8, code: u8) -> Vec<u8> {
        const RESPONSE_TO_RECURSIVE_QUERY: u8 = 0x81;
        const RECURSION_AVAILABLE: u8 = 0x80;
        let count = u16::try_from(addresses.len()).expect("no more fit into a packet").to_be_bytes();
        let mut response = self.id.to_vec();
        response.extend([RESPONSE_TO_RECURSIVE_QUERY | flags, RECURSION_AVAILABLE | code]);
        response.extend([0, 1, count[0], count[1], 0, 0, 0, 0]);
        response.extend(self.bytes);
        for address in addresses {
            response.extend(self.encoded_name);
            // A, class IN, valid for 600 s, 4 bytes.
            response.extend([0, 1, 0, 1, 0, 0, 2, 88, 0, 4]);
            response.extend(address.octets());
        }
        response
    }
}
