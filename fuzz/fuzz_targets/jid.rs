//! An address that is accepted is in its prepared form: preparing it again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whinchat::jid::JidRef;

fuzz_target!(|text: &str| {
    let Ok(jid) = JidRef::parse(text) else { return };
    let again = JidRef::parse(jid.as_str()).expect("a prepared address is an address");
    assert_eq!(again.as_str(), jid.as_str());
    assert_eq!((again.local(), again.domain(), again.resource()), (jid.local(), jid.domain(), jid.resource()));
});
