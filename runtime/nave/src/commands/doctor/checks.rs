//! Clock, data directory, descriptors, certificate, functions.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_net::limits::MAX_CONNECTIONS;
use nave_net::tls::Identity;

use super::{Finding, Patient, Verdict};
use crate::inspect::{self, CertificateFacts};
use crate::ready::Ready;

/// 2026-01-01: this program did not exist before, so a clock that says so is wrong.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Files that were written so long in the future were written by a clock that has been set back since.
const AHEAD: Duration = Duration::from_secs(300);

/// A configured certificate that ends within so many days should have been renewed.
const SOON_DAYS: i64 = 21;

/// Descriptors beside those of connections: files of store and log, sockets that listen.
const OTHER_DESCRIPTORS: u64 = 1_000;

/// Whether a process with the ready file's number runs; a killed hub leaves its file.
pub(super) fn is_alive(ready: &Ready) -> bool {
    // Where there is no /proc, the file is believed.
    !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{}", ready.pid)).exists()
}

/// Whether the time can be right: tokens and certificates are judged by it.
pub(super) fn clock(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "clock";
    const REMEDY: &str = "set the clock and keep it right (`timedatectl set-ntp true`, or chrony): tokens and certificates are judged by it";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = nave_model::Timestamp::from_unix_seconds(now.as_secs()).iso();
    if now < EARLIEST {
        return vec![Finding::failed(WHAT, format!("it says {shown}, which cannot be"), REMEDY)];
    }
    let newest = newest_file(&patient.config.data_dir);
    if let Some(newest) = newest
        && newest > now + AHEAD
    {
        let ahead = (newest - now).as_secs() / 60;
        let found = format!("it says {shown}, but the data directory was written {ahead} minutes later than that");
        return vec![Finding::failed(WHAT, found, REMEDY)];
    }
    vec![Finding::ok(WHAT, format!("{shown} (whether it is synchronised, only your system knows)"))]
}

/// When the newest of the files that a hub keeps rewriting was written.
fn newest_file(data_dir: &Path) -> Option<Duration> {
    let dirs = std::iter::once(data_dir.to_owned()).chain([data_dir.join("store"), data_dir.join("log")]);
    let entries = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()).max()
}

/// Whether the data directory is ours, and ours alone.
pub(super) fn data_directory(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "data dir";
    let dir = &patient.config.data_dir;
    let shown = dir.display();
    let Some(me) = std::fs::metadata("/proc/self").ok().map(|about| about.uid()) else {
        return vec![Finding::ok(WHAT, format!("{shown} (this system does not say who this user is)"))];
    };
    let about = match std::fs::metadata(dir) {
        Ok(about) if about.is_dir() => about,
        Ok(_) => {
            let remedy = "choose another with --data-dir";
            return vec![Finding::failed(WHAT, format!("{shown} is not a directory"), remedy)];
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec![Finding::ok(WHAT, format!("{shown} does not exist yet; the first start makes it"))];
        }
        Err(error) => {
            let remedy = "give it to this user (`chown`), or run the check as the user that the hub runs as";
            return vec![Finding::failed(WHAT, format!("{shown}: {error}"), remedy)];
        }
    };
    let mut findings = Vec::new();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let foreign: Vec<String> = entries
        .filter(|entry| entry.metadata().is_ok_and(|about| about.uid() != me))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if about.uid() != me || !foreign.is_empty() {
        let whose = if foreign.is_empty() { String::new() } else { format!(" (among it {})", foreign.join(", ")) };
        findings.push(Finding::failed(
            WHAT,
            format!("{shown} belongs to user {}, this is user {me}{whose}", about.uid()),
            format!("`sudo chown -R USER {shown}` for the user that the hub runs as, or run the check as that user"),
        ));
    }
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        findings.push(Finding::warning(
            WHAT,
            format!("others may look into {shown} (mode {mode:o})"),
            format!("`chmod 700 {shown}`; the next start does it too. It holds keys"),
        ));
    }
    if findings.is_empty() {
        let state = match &patient.running {
            Some(running) => format!("in use by the hub that runs (process {})", running.pid),
            None if is_locked(dir) => "in use by another process".to_owned(),
            None => "not in use".to_owned(),
        };
        findings.push(Finding::ok(WHAT, format!("{shown} is this user's alone; {state}")));
    }
    findings
}

fn is_locked(dir: &Path) -> bool {
    File::open(dir.join("nave.lock"))
        .is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

/// Whether enough connections fit.
pub(super) fn descriptors() -> Vec<Finding> {
    const WHAT: &str = "descriptors";
    let wanted = u64::try_from(MAX_CONNECTIONS).unwrap_or(u64::MAX).saturating_add(OTHER_DESCRIPTORS);
    vec![match inspect::descriptor_limit() {
        Some(limit) if limit < wanted => Finding::warning(
            WHAT,
            format!(
                "this shell may open {limit} descriptors: room for about {} connections",
                limit.saturating_sub(OTHER_DESCRIPTORS)
            ),
            format!("for more: `ulimit -n {wanted}` before the start, `LimitNOFILE={wanted}` in a systemd unit"),
        ),
        Some(limit) => Finding::ok(WHAT, format!("{limit} may be open")),
        None => Finding::ok(WHAT, "no limit that this system tells"),
    }]
}

/// Whether clients will accept what is served.
pub(super) fn certificate(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "certificate";
    let Some(tls) = &patient.config.tls else { return vec![development(WHAT, patient)] };
    let shown = tls.certificate.display();
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let remedy = "name readable PEM files in `[tls]`; the user that the hub runs as must be able to read them";
    let (chain, key) = match (read(&tls.certificate), read(&tls.key), read(&tls.ca)) {
        (Ok(chain), Ok(key), Ok(_)) => (chain, key),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return vec![Finding::failed(WHAT, error, remedy)],
    };
    if let Err(error) = Identity::from_pem(&chain, &key) {
        let remedy = "put the leaf first, then its intermediates, and name the key that the leaf was made for";
        return vec![Finding::failed(WHAT, format!("{shown}: {error}"), remedy)];
    }
    let Some(facts) = CertificateFacts::of_pem(&chain) else {
        return vec![Finding::failed(WHAT, format!("{shown} cannot be understood"), remedy)];
    };
    let mut findings = vec![validity(WHAT, &shown.to_string(), &facts)];
    let names = patient.config.host_names();
    let missing: Vec<&str> =
        names.iter().map(|name| name.as_str()).filter(|name| *name != "localhost" && !facts.covers(name)).collect();
    if missing.is_empty() {
        findings.push(Finding::ok(WHAT, "it is good for every name of the hubs and of the provisioning service"));
    } else {
        findings.push(Finding::failed(
            WHAT,
            format!("it is good for {}, not for {}", facts.names.join(", "), missing.join(", ")),
            "have it issued for these names too, or take them out of the configuration: clients that dial them refuse it",
        ));
    }
    findings
}

fn validity(what: &'static str, shown: &str, facts: &CertificateFacts) -> Finding {
    let now = crate::serve::now();
    let days = facts.days_left(now);
    if !facts.is_valid_at(now) {
        let found = if days < 0 { "has expired" } else { "is not valid yet" };
        return Finding::failed(what, format!("{shown} {found}"), "renew it, or set the clock, and then `nave reload`");
    }
    if days < SOON_DAYS {
        let remedy = "renew it, and then `nave reload`: no restart is needed";
        return Finding::warning(what, format!("{shown} ends in {days} days"), remedy);
    }
    Finding::ok(what, format!("{shown} is valid for another {days} days, issued by {}", facts.issuer))
}

fn development(what: &'static str, patient: &Patient) -> Finding {
    let path = patient.config.data_dir.join("tls").join("server.pem");
    match std::fs::read(&path) {
        Ok(chain) => match CertificateFacts::of_pem(&chain) {
            Some(facts) => {
                let finding = validity(what, "the development CA's", &facts);
                if finding.verdict == Verdict::Warning {
                    // It is renewed by itself.
                    return Finding::ok(what, finding.found);
                }
                finding
            }
            None => Finding::failed(
                what,
                format!("{} cannot be understood", path.display()),
                "remove it; a new one is made at the next start",
            ),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok(what, "the first start makes a development CA and a certificate for all names")
        }
        Err(error) => Finding::failed(
            what,
            format!("{}: {error}", path.display()),
            "run the check as the user that the hub runs as",
        ),
    }
}

/// Whether replaced functions can be read.
pub(super) fn functions(patient: &Patient) -> Vec<Finding> {
    const WHAT: &str = "functions";
    let nave_engine::Source::Directory(dir) = &patient.config.functions else {
        return vec![Finding::ok(WHAT, "the built-in ones")];
    };
    let shown = dir.display();
    let remedy = "create it, or leave out `functions_dir`";
    match std::fs::read_dir(dir) {
        Err(error) => vec![Finding::failed(WHAT, format!("{shown}: {error}"), remedy)],
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let (ours, others): (Vec<String>, Vec<String>) =
                names.filter(|name| name.ends_with(".wasm")).partition(|name| {
                    nave_engine::FUNCTION_NAMES.iter().any(|known| name.strip_suffix(".wasm") == Some(*known))
                });
            let mut findings = vec![Finding::ok(
                WHAT,
                format!("{shown} replaces {}", if ours.is_empty() { "none".to_owned() } else { ours.join(", ") }),
            )];
            if !others.is_empty() {
                let known = nave_engine::FUNCTION_NAMES.join(".wasm, ");
                findings.push(Finding::warning(
                    WHAT,
                    format!("nobody reads {}", others.join(", ")),
                    format!("name it as one of {known}.wasm, or remove it"),
                ));
            }
            findings
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::patient;
    use super::*;
    use crate::config::TlsFiles;

    fn tls(dir: &Path, names: &[&str], days: i64) -> TlsFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(400);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        let certificate = params.self_signed(&key).unwrap();
        let files = TlsFiles { certificate: dir.join("c.pem"), key: dir.join("k.pem"), ca: dir.join("c.pem") };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
        findings.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_certificate_is_judged_by_time_names_and_key() {
        use Verdict::{Failed, Ok, Warning};
        let dir = tempfile::tempdir().unwrap();
        let mut patient = patient(dir.path());
        for (names, days, expected) in [
            (&["*.nave.test"][..], 90, vec![Ok, Ok]),
            (&["*.nave.test"], 5, vec![Warning, Ok]),
            (&["*.nave.test"], -1, vec![Failed, Ok]),
            (&["hub1.nave.test"], 90, vec![Ok, Failed]),
        ] {
            patient.config.tls = Some(tls(dir.path(), names, days));
            let findings = certificate(&patient);
            assert_eq!(verdicts(&findings), expected, "{findings:?}");
        }
        let other = tempfile::tempdir().unwrap();
        let mut mixed = tls(dir.path(), &["*.nave.test"], 90);
        mixed.key = tls(other.path(), &["x.y"], 90).key;
        patient.config.tls = Some(mixed.clone());
        assert!(certificate(&patient)[0].found.contains("does not belong"), "{:?}", certificate(&patient));
        mixed.ca = dir.path().join("missing");
        patient.config.tls = Some(mixed);
        assert_eq!(verdicts(&certificate(&patient)), [Failed]);
    }

    #[test]
    fn a_directory_for_everybody_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let findings = data_directory(&patient(dir.path()));
        assert!(findings[0].remedy.contains("chmod 700"), "{findings:?}");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(verdicts(&data_directory(&patient(dir.path()))), [Verdict::Ok]);
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(verdicts(&clock(&patient(dir.path()))), [Verdict::Ok]);
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        File::options().write(true).open(&path).unwrap().set_modified(tomorrow).unwrap();
        assert_eq!(verdicts(&clock(&patient(dir.path()))), [Verdict::Failed]);
    }

    #[test]
    fn functions_that_nobody_reads_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut patient = patient(dir.path());
        patient.config.functions = nave_engine::Source::Directory(dir.path().to_owned());
        std::fs::write(dir.path().join("twin.wasm"), "").unwrap();
        assert_eq!(verdicts(&functions(&patient)), [Verdict::Ok]);
        std::fs::write(dir.path().join("twins.wasm"), "").unwrap();
        assert_eq!(verdicts(&functions(&patient)), [Verdict::Ok, Verdict::Warning]);
    }
}
