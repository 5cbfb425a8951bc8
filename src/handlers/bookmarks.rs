//! XEP-0402: bookmarks are items of a node; clients that keep them in private XML (XEP-0048 in XEP-0049) or in the item of an
//! older node (XEP-0048 1.1 in XEP-0223) see and change the same.
//!
//! They are kept alike by the store (`store::bridges`, with `core::bookmarks`), in the transaction that changes one of the three.

use super::prelude::*;

pub(super) const HANDLER: Handler = Handler {
    name: "bookmarks",
    spec: "XEP-0402 1.2, XEP-0048 1.2",
    account_features: &[ns::BOOKMARKS, "urn:xmpp:bookmarks:1#compat", "urn:xmpp:bookmarks:1#compat-pep"],
    ..Handler::EMPTY
};
