//! Copies of small hubs, and copies that are damaged.

use std::io::Cursor;
use std::path::Path;

use nave_env::SharedEnv;
use nave_env::sim::Simulation;
use nave_log::{FileLog, Log as _, MessageKey, NewRecord, PartitionId};
use nave_model::{
    Authentication, DeviceId, DeviceRecord, Identity, KeyPairText, Keys, ModuleId, Record as _, SecretText,
    SessionRecord, Tenant, Timestamp, TwinRecord,
};
use nave_store::{FjallStore, Put, Store as _};

use super::*;

fn env() -> SharedEnv {
    Simulation::new(1, Timestamp::from_unix_seconds(1_800_000_000)).host()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn store(dir: &Path) -> FjallStore {
    let options = nave_store::Options { cache_bytes: 1 << 20, reserve_bytes: 0 };
    FjallStore::open(&dir.join("store"), options, env()).unwrap()
}

fn log(dir: &Path) -> FileLog {
    FileLog::open(&dir.join("log/hub1"), nave_log::Options::default(), env()).unwrap()
}

fn record(number: u8) -> NewRecord {
    NewRecord {
        key: MessageKey([number; 16]),
        source: nave_log::Source::DeviceMessages,
        device_id: "d1".to_owned(),
        module_id: None,
        endpoints: vec!["events".to_owned()],
        system: vec![],
        properties: vec![],
        body: vec![number; 300_000].into(),
    }
}

fn put(key: &str, value: impl Into<Vec<u8>>) -> Put {
    Put { key: key.to_owned(), value: Some(value.into().into()) }
}

/// The record of a device or module as it was created.
fn identity(id: &str) -> Vec<u8> {
    let keys = KeyPairText { primary: SecretText::new("AA==".into()), secondary: SecretText::new("AA==".into()) };
    let identity = Identity::parse(id).unwrap();
    let twin = TwinRecord::default();
    DeviceRecord::new(&identity, "1".into(), Authentication::Sas(keys), twin, Timestamp::default()).encode().unwrap()
}

/// A data directory with everything that a hub keeps, closed.
fn hub(dir: &Path) {
    std::fs::create_dir_all(dir.join("tls")).unwrap();
    std::fs::create_dir_all(dir.join("cache")).unwrap();
    for (file, text) in [
        ("settings.json", "{\"keys\":1}"),
        ("tls/ca.pem", "a certificate"),
        ("connection.json", "{}"),
        ("cache/x", "compiled"),
        ("nave.lock", ""),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let store = store(dir);
    let keys = Keys::new(&Tenant::default_tenant(), "hub1");
    let module = Identity::module(DeviceId::parse("d2").unwrap(), ModuleId::parse("m%1").unwrap());
    let session =
        |epoch| SessionRecord::decode(format!("{{\"v\":1,\"epoch\":{epoch},\"host\":\"h\"}}").as_bytes()).unwrap();
    block_on(store.commit(
        vec![],
        vec![
            put("v1/default/hub1/device/d1", identity("d1")),
            put("v1/default/hub1/device/d2", identity("d2")),
            put(&keys.identity(&module), identity("d2/m%1")),
            put("v1/default/hub1/session/d1", session(7).encode().unwrap()),
            put("v1/default/$dps/enrollment/large", vec![b'x'; 3 << 20]),
        ],
    ))
    .unwrap();
    let log = log(dir);
    for number in 0..3 {
        block_on(log.append(PartitionId::new(number).unwrap(), vec![record(number as u8)])).unwrap();
    }
    log.close();
    store.close();
}

fn back_up(dir: &Path) -> (Vec<u8>, Summary) {
    let source = offline(dir, &env()).unwrap();
    let mut bytes = Vec::new();
    let summary = write(&source, Timestamp::from_unix_seconds(1_800_000_001), &mut bytes).unwrap();
    (bytes, summary)
}

#[test]
fn what_is_restored_is_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir.path().join("one"));
    let (bytes, written) = back_up(&dir.path().join("one"));
    let file = dir.path().join("backup");
    std::fs::write(&file, &bytes).unwrap();
    let two = dir.path().join("two");
    let summary = restore(&file, &two, |_| {}).unwrap();
    assert_eq!((summary.files, summary.entries, summary.bytes), (4, 5, bytes.len() as u64));
    assert_eq!(summary, written);
    assert_eq!(std::fs::read_to_string(two.join("settings.json")).unwrap(), "{\"keys\":1}");
    assert_eq!(std::fs::read_to_string(two.join("tls/ca.pem")).unwrap(), "a certificate");
    for left_out in ["connection.json", "cache", "nave.lock"] {
        assert!(!two.join(left_out).exists(), "{left_out}");
    }
    let store = store(&two);
    let entries = block_on(store.scan("", None, 100)).unwrap();
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "v1/default/$dps/enrollment/large",
            "v1/default/hub1/device/d1",
            "v1/default/hub1/device/d2",
            "v1/default/hub1/module/d2/m%251",
            "v1/default/hub1/session/d1",
            "v1/default/hub1/session/d2",
            "v1/default/hub1/session/d2%2Fm%251",
        ]
    );
    // What the lost hub gave out after the copy is not given out again.
    let device = DeviceRecord::decode(&entries[1].1.value).unwrap();
    assert_eq!((device.etag, device.twin.etag), ((1 << 32) + 1, (1 << 32) + TwinRecord::default().etag));
    assert_eq!((device.twin.desired.version, device.twin.reported.version), (1 << 20, 1 << 20));
    let epoch = |at: usize| SessionRecord::decode(&entries[at].1.value).unwrap().epoch;
    assert_eq!((epoch(4), epoch(5), epoch(6)), ((1 << 32) + 7, 1 << 32, 1 << 32));
    let next = block_on(store.commit(vec![], vec![put("x", "")])).unwrap();
    assert!(next.get() > 1 << 32);
    let log = log(&two);
    for number in 0..3 {
        let batch = block_on(log.read(PartitionId::new(number).unwrap(), 0, 10, 1 << 20)).unwrap();
        assert_eq!(batch.records[0].content, record(number as u8));
    }
    assert!(restore(&file, &two, |_| {}).unwrap_err().to_string().contains("not empty"));
}

#[test]
fn no_damage_goes_unnoticed_and_nothing_is_left_of_an_attempt() {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir.path().join("one"));
    let (bytes, _) = back_up(&dir.path().join("one"));
    let check_of = |bytes: &[u8]| check(Cursor::new(bytes.to_vec()), |_| {});
    assert!(check_of(&bytes).is_ok());
    // Every byte of the small parts, some of the large ones.
    let step = |at: usize| if at < 400 || at + 400 > bytes.len() { 1 } else { 40_009 };
    let mut at = 0;
    while at < bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(check_of(&damaged).is_err(), "byte {at}");
        assert!(check_of(&bytes[..at]).is_err(), "cut at {at}");
        at += step(at);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(check_of(&longer).unwrap_err().to_string().contains("follows its end"));
    let file = dir.path().join("backup");
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let error = restore(&file, &dir.path().join("two"), |_| {}).unwrap_err();
    assert!(error.to_string().contains("ends too early"), "{error}");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup", "one"]);
}

/// A backup by hand: right in form, and with a path that would leave the directory.
#[test]
fn a_path_never_leaves_the_directory() {
    use super::format::{Kind, MAGIC, block_head};
    for path in ["../evil", "/etc/passwd", "a/../../b", "", "a//b", "./a"] {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let payload = [&0o600_u32.to_le_bytes()[..], path.as_bytes()].concat();
        bytes.extend(block_head(Kind::File, &payload));
        bytes.extend(payload);
        let error = check(Cursor::new(bytes), |_| {}).unwrap_err();
        assert!(error.to_string().contains("name of a file"), "{path}: {error}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = format::MAGIC.to_vec();
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend([0; 100]);
    assert!(matches!(check(Cursor::new(bytes), |_| {}), Err(BackupError::Newer(2))));
    assert!(check(Cursor::new(b"PK\x03\x04 something else, long enough"), |_| {}).is_err());
}

#[test]
fn an_empty_directory_is_filled_in_place_and_an_interrupted_attempt_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir.path().join("one"));
    let (bytes, _) = back_up(&dir.path().join("one"));
    let file = dir.path().join("backup");
    std::fs::write(&file, &bytes).unwrap();
    // As a mount point is: nothing can take its place, and file systems keep something there.
    let two = dir.path().join("two");
    std::fs::create_dir_all(two.join("lost+found")).unwrap();
    let held = std::fs::File::open(&two).unwrap();
    let number = |about: std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(&about);
    restore(&file, &two, |_| {}).unwrap();
    assert_eq!(number(held.metadata().unwrap()), number(std::fs::metadata(&two).unwrap()), "it is the same directory");
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let whole = names(&two);
    assert_eq!(whole, ["log", "lost+found", "settings.json", "store", "tls"]);
    // A crash after the first move, and one before.
    for moved in ["settings.json\n", ""] {
        std::fs::create_dir(two.join(".restoring")).unwrap();
        std::fs::write(two.join(".restoring/half"), "x").unwrap();
        std::fs::write(two.join("nave.lock"), "").unwrap();
        std::fs::write(two.join(".restoring/moving"), format!("{moved}store\nlog\ntls\n")).unwrap();
        assert!(was_interrupted(&two));
        if moved.is_empty() {
            // Something that no attempt moved is not removed.
            assert!(restore(&file, &two, |_| {}).unwrap_err().to_string().contains("not empty"));
            std::fs::remove_file(two.join("settings.json")).unwrap();
        }
        restore(&file, &two, |_| {}).unwrap();
        std::fs::remove_file(two.join("nave.lock")).unwrap();
        assert_eq!(names(&two), whole);
        assert!(!was_interrupted(&two));
    }
}

#[test]
fn what_ends_too_early_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir.path().join("one"));
    let (bytes, _) = back_up(&dir.path().join("one"));
    for pieces in [1, 7, 65_536, bytes.len()] {
        let mut whole = Whole::new();
        bytes.chunks(pieces).for_each(|piece| whole.update(piece));
        assert!(whole.is_whole());
    }
    for cut in [0, 30, 68, bytes.len() - 68, bytes.len() - 1] {
        let mut whole = Whole::new();
        whole.update(&bytes[..cut]);
        assert!(!whole.is_whole(), "{cut}");
    }
}
