//! Each test ends the writer before it looks, so nothing depends on how fast threads are.

use std::net::{IpAddr, Ipv4Addr};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn record(request_id: &str) -> Record<'_> {
    Record {
        time: Duration::from_secs(1),
        request_id: request_id.as_bytes(),
        trace_id: 0,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        identity: None,
        tenant: None,
        listener: "http",
        route: None,
        backend: None,
        variant: None,
        endpoint: None,
        fault: None,
        method: "GET",
        host: b"example.com",
        path: b"/",
        status: 200,
        problem: None,
        detail: None,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        backend_duration: None,
        gateway_added: Duration::ZERO,
        retries: 0,
        protocol: "HTTP/1.1",
        tls: None,
        config: "config@1",
        user_agent: None,
    }
}

/// Holds a fixed number of bytes, like a disk; more room can be made.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Disk {
    fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), room))))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }

    fn make_room(&self, room: usize) {
        self.0.lock().unwrap().1 += room;
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (held, room) = &mut *self.0.lock().unwrap();
        if *room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(*room).min(100);
        held.extend_from_slice(&bytes[..taken]);
        *room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stops at the first write until it is let go.
struct Stuck(Receiver<()>, SyncSender<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.try_send(()).unwrap_or_default();
        self.0.recv().unwrap_or_default();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_of_all_workers_arrive_whole() {
    let disk = Disk::new(usize::MAX);
    let log = Log::start(Target::Writer(Box::new(disk.clone()))).unwrap();
    let shared = Arc::clone(&log.shared);
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let mut worker = log.worker();
            scope.spawn(move || {
                for _ in 0..1_000 {
                    worker.write(Duration::ZERO, &record(name));
                }
            });
        }
    });
    assert!(log.close(LONG));
    let text = disk.text();
    assert_eq!(text.lines().filter(|line| line.contains(r#""request_id":"a""#)).count(), 1_000);
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!((shared.written.load(Relaxed), shared.dropped.load(Relaxed)), (2_000, 0));
}

#[test]
fn a_lonely_line_leaves_when_it_is_old_enough() {
    let log = Log::start(Target::Writer(Box::new(io::sink()))).unwrap();
    let mut worker = log.worker();
    worker.write(Duration::from_millis(1_000), &record("a"));
    worker.tick(Duration::from_millis(1_099));
    assert_eq!(worker.lines, 1);
    worker.tick(Duration::from_millis(1_100));
    assert_eq!(worker.lines, 0);
}

#[test]
fn a_stuck_reader_costs_lines_and_stops_nobody() {
    let (let_go, wait) = sync_channel(1);
    let (stuck, is_stuck) = sync_channel(1);
    let log = Log::start(Target::Writer(Box::new(Stuck(wait, stuck)))).unwrap();
    let mut worker = log.worker();
    worker.write(Duration::ZERO, &record("a"));
    worker.flush();
    is_stuck.recv().unwrap();
    for _ in 0..QUEUE_BATCHES_MAX + 10 {
        worker.write(Duration::ZERO, &record("a"));
        worker.flush();
    }
    assert_eq!(log.counts().dropped, 10);
    drop(worker);
    drop(let_go);
    let shared = Arc::clone(&log.shared);
    assert!(log.close(LONG));
    assert_eq!(shared.written.load(Relaxed), QUEUE_BATCHES_MAX as u64 + 1);
}

#[test]
fn a_full_disk_costs_lines_and_spoils_at_most_one() {
    let disk = Disk::new(1_000);
    let mut output = Output::new(Box::new(disk.clone()), None);
    let mut line = Vec::new();
    record("a").write(&mut Stamp::default(), &mut line);
    let batch = line.repeat(10);
    let whole = 1_000 / line.len();
    let outcome = output.write_lines(&batch);
    assert_eq!(outcome.dropped, 10 - whole as u64);
    assert_eq!(outcome.error.unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(output.write_lines(&batch).dropped, 10);
    disk.make_room(100_000);
    assert_eq!(output.write_lines(&batch).dropped, 0);
    let text = disk.text();
    let (good, bad): (Vec<_>, Vec<_>) =
        text.lines().partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert_eq!((good.len(), bad.len()), (whole + 10, 1));
}

#[test]
fn the_error_is_shown_until_lines_can_be_written_again() {
    let disk = Disk::new(0);
    let shared = Arc::new(Shared::default());
    let output = Output::new(Box::new(disk.clone()), None);
    let mut writer = Writer { output, shared: Arc::clone(&shared) };
    let (home, _spare) = sync_channel(1);
    let batch = || Batch { bytes: b"{}\n".to_vec(), lines: 1, home: home.clone() };
    writer.write(batch());
    assert!(shared.error.lock().unwrap().is_some());
    disk.make_room(100);
    writer.write(batch());
    assert_eq!(*shared.error.lock().unwrap(), None);
    assert_eq!((shared.written.load(Relaxed), shared.dropped.load(Relaxed)), (1, 1));
}

#[test]
fn a_file_is_appended_to_and_reopened_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let log = Log::start(Target::File(path.clone())).unwrap();
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    log.reopen();
    let mut worker = log.worker();
    worker.write(Duration::ZERO, &record("after"));
    drop(worker);
    assert!(log.close(LONG));
    assert_eq!(std::fs::read_to_string(folder.path().join("access.log.1")).unwrap(), "before\n");
    assert!(std::fs::read_to_string(&path).unwrap().contains("after"));
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/access.log");
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let mut output = open(Target::File(path)).unwrap();
    let moved = folder.path().join("moved");
    std::fs::rename(folder.path().join("logs"), &moved).unwrap();
    assert!(output.reopen().unwrap_err().to_string().contains("access.log"));
    assert_eq!(output.write_lines(b"{}\n").dropped, 0);
    assert_eq!(std::fs::read_to_string(moved.join("access.log")).unwrap(), "{}\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = Log::start(Target::File(folder.path().join("none/access.log"))).unwrap_err();
    assert!(error.to_string().contains("none/access.log"), "{error}");
}
