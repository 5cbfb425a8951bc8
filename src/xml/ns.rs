//! Every namespace, once.

/// RFC 6120 section 4.8.1: the stream's own namespace.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
/// Content namespace between client and server.
pub const CLIENT: &str = "jabber:client";
/// Conditions of stream errors, RFC 6120 section 4.9.2.
pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// Conditions of stanza errors, RFC 6120 section 8.3.2.
pub const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// STARTTLS, RFC 6120 section 5.
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL, RFC 6120 section 6.
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Extensible SASL profile, XEP-0388.
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// Resource binding with SASL, XEP-0386.
pub const BIND2: &str = "urn:xmpp:bind:0";
/// Log-in by tokens, XEP-0484.
pub const FAST: &str = "urn:xmpp:fast:0";
/// Upgrades of password keys, XEP-0480.
pub const SASL_UPGRADE: &str = "urn:xmpp:sasl:upgrade:0";
/// Those of SCRAM, XEP-0480 section 3.
pub const SCRAM_UPGRADE: &str = "urn:xmpp:scram-upgrade:0";
/// Channel-binding types, XEP-0440.
pub const SASL_CHANNEL_BINDING: &str = "urn:xmpp:sasl-cb:0";
/// Resource binding, RFC 6120 section 7.
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Legacy session, RFC 3921 section 3.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Roster, RFC 6121 section 2.
pub const ROSTER: &str = "jabber:iq:roster";
/// Roster versioning, RFC 6121 section 2.6.
pub const ROSTER_VERSIONING: &str = "urn:xmpp:features:rosterver";
/// Subscription pre-approval, RFC 6121 section 3.4.
pub const PRE_APPROVAL: &str = "urn:xmpp:features:pre-approval";
/// In-band registration, XEP-0077.
pub const REGISTER: &str = "jabber:iq:register";
/// Its stream feature.
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// Data forms, XEP-0004.
pub const DATA_FORMS: &str = "jabber:x:data";
/// Service discovery, XEP-0030.
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Service discovery, XEP-0030.
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// Entity capabilities, XEP-0115.
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// Contact addresses, XEP-0157.
pub const SERVER_INFO: &str = "http://jabber.org/network/serverinfo";
/// Ping, XEP-0199.
pub const PING: &str = "urn:xmpp:ping";
/// Software version, XEP-0092.
pub const VERSION: &str = "jabber:iq:version";
/// Entity time, XEP-0202.
pub const TIME: &str = "urn:xmpp:time";
/// Last activity, XEP-0012.
pub const LAST: &str = "jabber:iq:last";
/// vcard-temp, XEP-0054.
pub const VCARD: &str = "vcard-temp";
/// Private XML storage, XEP-0049.
pub const PRIVATE: &str = "jabber:iq:private";
/// Delayed delivery, XEP-0203.
pub const DELAY: &str = "urn:xmpp:delay";
/// Message processing hints, XEP-0334.
pub const HINTS: &str = "urn:xmpp:hints";
/// Chat states, XEP-0085.
pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// Delivery receipts, XEP-0184.
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// Chat markers, XEP-0333.
pub const MARKERS: &str = "urn:xmpp:chat-markers:0";
/// Stream limits, XEP-0478.
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// Blocking command, XEP-0191.
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// Its errors.
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// Message carbons, XEP-0280.
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// Stanza forwarding, XEP-0297.
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// Direct invitations, XEP-0249.
pub const MUC_INVITE: &str = "jabber:x:conference";
/// Client state indication, XEP-0352.
pub const CSI: &str = "urn:xmpp:csi:0";
/// XML itself.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Application-specific errors of the XSF.
pub const XMPP_ERRORS: &str = "urn:xmpp:errors";
/// Stream management, XEP-0198.
pub const SM: &str = "urn:xmpp:sm:3";
/// Multi-user chat, XEP-0045.
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// Multi-user chat, XEP-0045.
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Multi-user chat, XEP-0045.
pub const MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
/// Multi-user chat, XEP-0045.
pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
/// Form of a room's configuration, XEP-0045 section 15.5.3.
pub const MUC_ROOMCONFIG: &str = "http://jabber.org/protocol/muc#roomconfig";
/// Form of what is known of a room, XEP-0045 section 15.5.4.
pub const MUC_ROOMINFO: &str = "http://jabber.org/protocol/muc#roominfo";
/// Form of a request for voice, XEP-0045 section 15.5.2; also a feature.
pub const MUC_REQUEST: &str = "http://jabber.org/protocol/muc#request";
/// Form of a registration with a room, XEP-0045 section 15.5.1; also a feature.
pub const MUC_REGISTER: &str = "http://jabber.org/protocol/muc#register";
/// A message keeps its `id`, XEP-0045 section 7.4.
pub const MUC_STABLE_ID: &str = "http://jabber.org/protocol/muc#stable_id";
/// The service answers a ping to oneself, XEP-0410.
pub const MUC_SELF_PING: &str = "http://jabber.org/protocol/muc#self-ping-optimization";
/// Anonymous unique occupant identifiers, XEP-0421.
pub const OCCUPANT_ID: &str = "urn:xmpp:occupant-id:0";
/// Unique stanza ids, XEP-0359.
pub const STANZA_ID: &str = "urn:xmpp:sid:0";
/// Result set management, XEP-0059.
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// Message retraction, XEP-0424.
pub const RETRACT: &str = "urn:xmpp:message-retract:1";
/// Moderated message retraction, XEP-0425.
pub const MODERATE: &str = "urn:xmpp:message-moderate:1";
/// Message archive management, XEP-0313.
pub const MAM: &str = "urn:xmpp:mam:2";
/// Its newer half: pages flipped, messages by id, metadata.
pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
/// Data forms validation, XEP-0122.
pub const VALIDATE: &str = "http://jabber.org/protocol/xdata-validate";
/// Message reactions, XEP-0444.
pub const REACTIONS: &str = "urn:xmpp:reactions:0";
/// Its first version.
pub const RETRACT_0: &str = "urn:xmpp:message-retract:0";
/// Message fastening, XEP-0422.
pub const FASTEN: &str = "urn:xmpp:fasten:0";
/// Last message correction, XEP-0308.
pub const CORRECT: &str = "urn:xmpp:message-correct:0";
/// Message attaching, XEP-0367.
pub const ATTACHING: &str = "urn:xmpp:message-attaching:1";
/// OMEMO as most clients have it, XEP-0384 0.3.
pub const OMEMO: &str = "eu.siacs.conversations.axolotl";
/// OMEMO, XEP-0384 0.4 to 0.7.
pub const OMEMO_1: &str = "urn:xmpp:omemo:1";
/// OMEMO, XEP-0384 since 0.8.
pub const OMEMO_2: &str = "urn:xmpp:omemo:2";
/// Explicit message encryption, XEP-0380.
pub const ENCRYPTION: &str = "urn:xmpp:eme:0";
/// OpenPGP for XMPP, XEP-0373.
pub const OPENPGP: &str = "urn:xmpp:openpgp:0";
/// Legacy OpenPGP, XEP-0027.
pub const PGP: &str = "jabber:x:encrypted";
/// Jingle message initiation, XEP-0353.
pub const JINGLE_MESSAGE: &str = "urn:xmpp:jingle-message:0";
/// Call invites, XEP-0482.
pub const CALL_INVITES: &str = "urn:xmpp:call-invites:0";
/// Stateless file sharing, XEP-0447.
pub const FILE_SHARING: &str = "urn:xmpp:sfs:0";
/// Out-of-band data, XEP-0066.
pub const OOB: &str = "jabber:x:oob";
/// A retracted message leaves a tombstone, XEP-0424.
pub const RETRACT_TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";
/// Moderated message retraction, XEP-0425 version 0.2.
pub const MODERATE_0: &str = "urn:xmpp:message-moderate:0";
/// Hash of a vCard's picture in presence, XEP-0153.
pub const VCARD_UPDATE: &str = "vcard-temp:x:update";
/// Node and payload of an avatar's picture, XEP-0084.
pub const AVATAR_DATA: &str = "urn:xmpp:avatar:data";
/// Node and payload of what is known of an avatar, XEP-0084.
pub const AVATAR_METADATA: &str = "urn:xmpp:avatar:metadata";
/// Node and payload of bookmarks, XEP-0402.
pub const BOOKMARKS: &str = "urn:xmpp:bookmarks:1";
/// Bookmarks as older clients have them, XEP-0048; also a node.
pub const OLD_BOOKMARKS: &str = "storage:bookmarks";
/// Node and payload of how far a user has read, XEP-0490.
pub const DISPLAYED: &str = "urn:xmpp:mds:displayed:0";
/// Node and payload of a nickname, XEP-0172.
pub const NICK: &str = "http://jabber.org/protocol/nick";
/// Node of a vCard4, XEP-0292.
pub const VCARD4_NODE: &str = "urn:xmpp:vcard4";
/// vCard4, RFC 6351.
pub const VCARD4: &str = "urn:ietf:params:xml:ns:vcard-4.0";
/// Push notifications, XEP-0357.
pub const PUSH: &str = "urn:xmpp:push:0";
/// External services, XEP-0215.
pub const EXTERNAL_SERVICES: &str = "urn:xmpp:extdisco:2";
/// Reports of spam and abuse, XEP-0377.
pub const REPORTING: &str = "urn:xmpp:reporting:1";
/// Ad-hoc commands, XEP-0050.
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// Service administration, XEP-0133: the type of its forms.
pub const ADMIN: &str = "http://jabber.org/protocol/admin";
/// Publish-Subscribe, XEP-0060.
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// What a node's owner asks, XEP-0060 section 8.
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// Notifications, XEP-0060 section 7.
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// Its errors.
pub const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// Form of a node's configuration.
pub const PUBSUB_NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// Form of a node's description.
pub const PUBSUB_META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";
