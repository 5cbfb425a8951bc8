//! Certificates: one for each served domain, read from the operator's PEM files or made by the server itself.
//!
//! Files are read when the server starts and again when they have changed ([`Certificates::refresh`]); a session keeps what
//! it was opened with. A pair that cannot be used is refused with the file named: at the start that is an error, later the
//! pair in use stays.
//!
//! The self-made certificate is an end-entity certificate (clients refuse a CA as a leaf), P-256, good for ten years, because
//! clients that pinned it ask their user again when it changes.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::leaf::LeafFacts;
use crate::config::{CertificateFiles, Config};
use crate::core::UtcTime;

/// A PEM file larger than this is no certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Validity of a self-made certificate.
const SELF_MADE_DAYS: u64 = 3650;
/// A self-made certificate is renewed when it has less than this left.
const RENEW_DAYS: u64 = 30;
const DAY_SECONDS: u64 = 86_400;
/// 2025-01-01. A box without a battery clock starts in 1970: a time before this is not believed.
const PLAUSIBLE_SECONDS: u64 = 1_735_689_600;

/// Why a certificate cannot be used; names the file and what to do.
#[derive(Debug)]
pub struct CertificateError {
    /// File or directory that is wrong.
    pub path: PathBuf,
    /// What is wrong with it, and the remedy.
    pub problem: String,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for CertificateError {}

fn refused(path: &Path, problem: impl fmt::Display) -> CertificateError {
    CertificateError { path: path.to_owned(), problem: problem.to_string() }
}

/// A certificate with its key, ready for handshakes.
#[derive(Debug)]
pub(super) struct Identity {
    /// Chain and key.
    pub(super) key: Arc<CertifiedKey>,
    /// `tls-server-end-point` (RFC 5929 section 4.1), if the signature names one hash.
    pub(super) end_point: Option<Vec<u8>>,
}

/// One domain with what it shows.
pub(super) struct Served {
    /// Prepared name.
    pub(super) domain: String,
    /// The name as it stands in SNI.
    pub(super) ascii: String,
    pub(super) identity: Arc<Identity>,
    source: Source,
    /// State of the files when they were last looked at; `None` for each that was not there.
    stamps: [Option<Stamp>; 2],
    /// End of the validity in seconds since 1970.
    not_after: u64,
}

/// Enough to notice that a file was replaced.
type Stamp = (SystemTime, u64);

#[derive(Clone)]
enum Source {
    Files(CertificateFiles),
    SelfMade(CertificateFiles),
}

/// What every domain shows.
pub(crate) struct Certificates {
    served: Vec<Served>,
    provider: Arc<CryptoProvider>,
}

impl Certificates {
    /// Reads or makes a certificate for each domain.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn load(
        config: &Config,
        provider: Arc<CryptoProvider>,
        now: UtcTime,
    ) -> Result<Certificates, CertificateError> {
        let mut served = Vec::with_capacity(config.domains.len());
        for domain in &config.domains {
            let source = match &domain.certificate {
                Some(files) => Source::Files(files.clone()),
                None => Source::SelfMade(own_files(&config.data, &domain.name)?),
            };
            served.push(Served::load(domain.name.clone(), source, &provider, now)?);
        }
        Ok(Certificates { served, provider })
    }

    /// In the order of the configuration.
    pub(super) fn served(&self) -> &[Served] {
        &self.served
    }

    /// Looks whether files have changed or a self-made certificate is near its end, and takes what is new. With `force` every
    /// file is read again. Returns whether anything is new and what could not be used; the old is then kept.
    pub(super) fn refresh(&mut self, force: bool, now: UtcTime) -> (bool, Vec<CertificateError>) {
        let mut changed = false;
        let mut problems = Vec::new();
        for served in &mut self.served {
            let stamps = served.source.stamps();
            if !force && stamps == served.stamps && !served.is_to_renew(now) {
                continue;
            }
            // Noted even when the pair turns out to be bad, so that it is complained of once.
            served.stamps = stamps;
            match Served::load(served.domain.clone(), served.source.clone(), &self.provider, now) {
                Ok(fresh) => {
                    changed |= fresh.identity.key.cert != served.identity.key.cert;
                    *served = fresh;
                }
                Err(problem) => problems.push(problem),
            }
        }
        (changed, problems)
    }
}

impl Served {
    fn load(
        domain: String,
        source: Source,
        provider: &CryptoProvider,
        now: UtcTime,
    ) -> Result<Served, CertificateError> {
        let stamps = source.stamps();
        let loaded = match &source {
            Source::Files(files) => read_pair(files, provider)?,
            Source::SelfMade(files) => own_pair(&domain, files, provider, now)?,
        };
        let (identity, not_after) = loaded;
        let stamps = if matches!(source, Source::SelfMade(_)) { source.stamps() } else { stamps };
        let ascii = ascii_name(&domain);
        Ok(Served { domain, ascii, identity: Arc::new(identity), source, stamps, not_after })
    }

    fn is_to_renew(&self, now: UtcTime) -> bool {
        matches!(self.source, Source::SelfMade(_)) && is_near(self.not_after, now)
    }
}

impl Source {
    fn stamps(&self) -> [Option<Stamp>; 2] {
        let (Source::Files(files) | Source::SelfMade(files)) = self;
        [&files.chain, &files.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        })
    }
}

/// Whether a pair could be used; returns the end of its validity.
///
/// # Errors
/// What is wrong with it.
pub fn check_certificate(files: &CertificateFiles) -> Result<UtcTime, CertificateError> {
    let (_, not_after) = read_pair(files, &rustls::crypto::ring::default_provider())?;
    Ok(UtcTime(not_after.saturating_mul(1000)))
}

/// A domain as DNS, certificates and SNI write it.
fn ascii_name(domain: &str) -> String {
    let bare = domain.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return bare.to_owned();
    }
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_owned())
}

/// Where the self-made pair of a domain is kept.
fn own_files(data: &Path, domain: &str) -> Result<CertificateFiles, CertificateError> {
    let directory = data.join("certificates");
    // A prepared domain has neither, but this one becomes a path.
    if domain.starts_with('.') || domain.contains(['/', '\\', '\0']) {
        return Err(refused(&directory, format!("the domain {domain:?} cannot be a file name; rename it")));
    }
    let file = |kind: &str| directory.join(format!("{domain}.{kind}"));
    Ok(CertificateFiles { chain: file("pem"), key: file("key") })
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let read = || {
        let mut bytes = Zeroizing::new(Vec::new());
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| {
        refused(path, format!("cannot be read: {error}; check the path and its permissions"))
    })
}

/// Reads a chain and its key, and proves that they belong together.
fn read_pair(files: &CertificateFiles, provider: &CryptoProvider) -> Result<(Identity, u64), CertificateError> {
    let pem = read_file(&files.chain)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| {
            refused(&files.chain, format!("is not PEM: {error}; give the full chain as certbot writes it"))
        })?;
    let Some(leaf) = chain.first() else {
        return Err(refused(&files.chain, "holds no certificate; give the full chain as certbot writes it"));
    };
    let Some(facts) = LeafFacts::parse(leaf) else {
        return Err(refused(&files.chain, "its first certificate is damaged"));
    };
    let end_point = facts.hash.map(|hash| hash.digest(leaf));

    let pem = read_file(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        refused(&files.key, format!("holds no usable private key: {error}; give it in PEM, unencrypted"))
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => refused(
            &files.key,
            format!("is not the key of {}; give the pair that belongs together", files.chain.display()),
        ),
        error => refused(&files.key, format!("cannot be used: {error}; give an ECDSA, Ed25519 or RSA key")),
    })?;
    Ok((Identity { key: Arc::new(certified), end_point }, facts.not_after))
}

/// The self-made pair: what is there, or a new one if there is none, it is damaged or it is near its end.
fn own_pair(
    domain: &str,
    files: &CertificateFiles,
    provider: &CryptoProvider,
    now: UtcTime,
) -> Result<(Identity, u64), CertificateError> {
    if files.chain.exists() && files.key.exists() {
        match read_pair(files, provider) {
            Ok((identity, not_after)) if !is_near(not_after, now) => return Ok((identity, not_after)),
            Ok(_) => log::info!("the self-made certificate of {domain} is near its end and is made anew"),
            Err(problem) => log::warn!("{problem}; a new one is made for {domain}"),
        }
    }
    make_pair(domain, files, now)?;
    read_pair(files, provider)
}

fn is_near(not_after: u64, now: UtcTime) -> bool {
    let now = now.0 / 1000;
    now >= PLAUSIBLE_SECONDS && now + RENEW_DAYS * DAY_SECONDS > not_after
}

fn make_pair(domain: &str, files: &CertificateFiles, now: UtcTime) -> Result<(), CertificateError> {
    let start = (now.0 / 1000).max(PLAUSIBLE_SECONDS);
    let (chain, key) =
        sign_own(domain, start).map_err(|error| refused(&files.chain, format!("cannot be made: {error}")))?;
    let directory = files.chain.parent().unwrap_or(Path::new("."));
    // Its keys are nobody else's to read; the data directory above is made the same way.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| refused(directory, format!("cannot be made: {error}; make it writable for the server")))?;
    for (path, pem) in [(&files.key, key.as_str()), (&files.chain, chain.as_str())] {
        replace_file(path, pem.as_bytes())
            .map_err(|error| refused(path, format!("cannot be written: {error}; make it writable for the server")))?;
    }
    Ok(())
}

fn sign_own(domain: &str, start: u64) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::new([ascii_name(domain)])?;
    params.not_before = epoch + Duration::from_secs(start - DAY_SECONDS);
    params.not_after = epoch + Duration::from_secs(start + SELF_MADE_DAYS * DAY_SECONDS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, domain);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

/// Writes a file that only its owner can read, whole or not at all.
fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::config::DomainConfig;

    /// 2026-11-22
    pub(in crate::net) const NOW: UtcTime = UtcTime(1_795_305_600_000);

    /// A directory that goes away with the test.
    pub(in crate::net) struct Directory(pub(in crate::net) PathBuf);

    impl Directory {
        pub(in crate::net) fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("whinchat-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        /// Writes a file with a time of change of its own.
        fn put(&self, name: &str, content: &str, age: u64) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.0 / 1000 - age)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    pub(in crate::net) fn load(data: &Path, domains: Vec<DomainConfig>) -> Result<Certificates, CertificateError> {
        let config = Config { data: data.to_owned(), domains, ..Config::try_out() };
        Certificates::load(&config, provider(), NOW)
    }

    pub(in crate::net) fn own(name: &str) -> DomainConfig {
        DomainConfig { name: name.to_owned(), ..DomainConfig::default() }
    }

    fn leaf(certificates: &Certificates) -> Vec<u8> {
        certificates.served()[0].identity.key.cert[0].to_vec()
    }

    #[test]
    fn the_self_made_pair_is_made_once_and_renewed_at_its_end() {
        let directory = Directory::new("own");
        let first = load(&directory.0, vec![own("bücher.example")]).unwrap();
        assert_eq!(first.served()[0].ascii, "xn--bcher-kva.example");
        for kind in ["pem", "key"] {
            let file = fs::metadata(directory.0.join(format!("certificates/bücher.example.{kind}"))).unwrap();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
        }
        let made = fs::metadata(directory.0.join("certificates")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o777, 0o700);
        let mut again = load(&directory.0, vec![own("bücher.example")]).unwrap();
        assert_eq!(leaf(&again), leaf(&first));
        let facts = LeafFacts::parse(&leaf(&first)).unwrap();
        assert_eq!(facts.not_after, NOW.0 / 1000 + SELF_MADE_DAYS * DAY_SECONDS);

        // Ten years later, and at a clock that has lost the time.
        let end = UtcTime((facts.not_after - RENEW_DAYS * DAY_SECONDS) * 1000);
        assert!(!again.refresh(false, end).0);
        assert!(!again.refresh(false, UtcTime(0)).0);
        assert!(again.refresh(false, UtcTime(end.0 + 1000)).0);
        assert_ne!(leaf(&again), leaf(&first));

        // A pair torn apart by a power cut between two writes is made anew.
        let (_, key) = sign_own("other.example", NOW.0 / 1000).unwrap();
        fs::write(directory.0.join("certificates/bücher.example.key"), key.as_bytes()).unwrap();
        assert_ne!(leaf(&load(&directory.0, vec![own("bücher.example")]).unwrap()), leaf(&again));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let directory = Directory::new("refused");
        let (chain, key) = sign_own("a.example", NOW.0 / 1000).unwrap();
        let (_, other_key) = sign_own("a.example", NOW.0 / 1000).unwrap();
        let check = |chain: Option<&str>, key: Option<&str>, expected: Option<&str>| {
            let mut files = [chain, key].into_iter().zip(["chain", "key"]).map(|(content, name)| match content {
                Some(content) => directory.put(name, content, 0),
                None => directory.0.join("missing"),
            });
            let files = CertificateFiles { chain: files.next().unwrap(), key: files.next().unwrap() };
            let result = load(&directory.0, vec![DomainConfig { certificate: Some(files), ..own("a.example") }]);
            let refused = result.err().map(|error| error.path);
            assert_eq!(refused.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()), expected);
        };
        check(Some(&chain), Some(&key), None);
        check(Some(&format!("{}{chain}", key.as_str())), Some(&format!("{chain}{}", key.as_str())), None);
        check(Some(&chain), Some(&other_key), Some("key"));
        check(Some(&chain), Some(&chain), Some("key"));
        check(Some(&chain), Some(""), Some("key"));
        check(Some(&chain), None, Some("missing"));
        check(Some(&key), Some(&key), Some("chain"));
        check(Some(""), Some(&key), Some("chain"));
        check(Some(&chain.replace("-----END", "=====END")), Some(&key), Some("chain"));
        check(Some("-----BEGIN CERTIFICATE-----\nMAAwAA==\n-----END CERTIFICATE-----\n"), Some(&key), Some("chain"));
        check(None, Some(&key), Some("missing"));
    }

    #[test]
    fn files_are_taken_when_they_change_and_fit() {
        let directory = Directory::new("refresh");
        let pair = || sign_own("a.example", NOW.0 / 1000).unwrap();
        let (first, second) = (pair(), pair());
        let files =
            CertificateFiles { chain: directory.put("chain", &first.0, 100), key: directory.put("key", &first.1, 100) };
        let mut served =
            load(&directory.0, vec![DomainConfig { certificate: Some(files), ..own("a.example") }]).unwrap();
        let old = leaf(&served);
        let mut check = |force, expected: (bool, usize), is_old: bool| {
            let (is_changed, problems) = served.refresh(force, NOW);
            assert_eq!((is_changed, problems.len()), expected);
            assert_eq!(leaf(&served) == old, is_old);
        };
        check(false, (false, 0), true);
        check(true, (false, 0), true);
        // Half of the new pair is there: complained of once, the old stays.
        directory.put("chain", &second.0, 50);
        check(false, (false, 1), true);
        check(false, (false, 0), true);
        check(true, (false, 1), true);
        directory.put("key", &second.1, 50);
        check(false, (true, 0), false);
        fs::remove_file(directory.0.join("key")).unwrap();
        check(false, (false, 1), false);
        check(false, (false, 0), false);
    }

    #[test]
    fn a_domain_does_not_lead_out_of_its_directory() {
        for domain in ["../a", "a/b", ".hidden", "a\\b", ""] {
            assert_eq!(own_files(Path::new("/d"), domain).is_ok(), domain.is_empty(), "{domain:?}");
        }
        assert_eq!(ascii_name("[::1]"), "::1");
    }
}
