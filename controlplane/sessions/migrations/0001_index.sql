-- A workspace is its name and its creation: another of the same name does not inherit sessions.
CREATE TABLE workspaces (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT NOT NULL,
    created  TEXT NOT NULL,
    keep     INTEGER NOT NULL DEFAULT 0,     -- what to do when it is deleted
    deleted  INTEGER NOT NULL DEFAULT 0,     -- it is gone, and its sessions were kept
    UNIQUE (name, created)
) STRICT;

CREATE TABLE sessions (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace      INTEGER NOT NULL REFERENCES workspaces (id),
    agent          TEXT NOT NULL,
    session_id     TEXT NOT NULL,
    status         TEXT NOT NULL,
    last_activity  INTEGER NOT NULL,           -- milliseconds since 1970, like every time here
    parent         TEXT,
    title          TEXT NOT NULL,
    facts          TEXT NOT NULL DEFAULT '{}', -- JSON: the rest of what is known of it
    body           INTEGER NOT NULL UNIQUE,    -- where its messages are; another one after it was rewritten
    messages       INTEGER NOT NULL DEFAULT 0, -- of user and assistant
    bytes          INTEGER NOT NULL DEFAULT 0, -- of its messages' blocks
    mark           TEXT,                       -- of what was read, once all of it was
    cursor         TEXT,                       -- where to read on
    forgotten      INTEGER NOT NULL DEFAULT 0, -- a person had it deleted here; a change brings it back
    UNIQUE (workspace, agent, session_id)
) STRICT;
CREATE INDEX sessions_by_activity ON sessions (last_activity DESC, id DESC);
CREATE INDEX sessions_of_workspaces ON sessions (workspace, last_activity DESC, id DESC);

-- Bodies are numbered once and for all: what is left of an old one must not appear in a new one.
CREATE TABLE bodies (last INTEGER NOT NULL) STRICT;
INSERT INTO bodies VALUES (0);

-- id: body << 24 | ordinal, so a session's messages lie side by side.
CREATE TABLE messages (
    id          INTEGER PRIMARY KEY,
    message_id  TEXT NOT NULL,
    role        TEXT NOT NULL,
    at          INTEGER,
    model       TEXT,
    blocks      TEXT NOT NULL                  -- JSON, masked
) STRICT;

-- Bodies whose messages are void; they are taken away piece by piece.
CREATE TABLE doomed (
    body   INTEGER PRIMARY KEY,
    scope  TEXT NOT NULL                       -- with which they are in the full text
) STRICT;

-- Messages that are not in the full text yet.
CREATE TABLE pending (message INTEGER PRIMARY KEY) STRICT;

-- Where a message is in the full text: seconds << 16 | a number, so that the newest have the highest.
CREATE TABLE docs (
    doc      INTEGER PRIMARY KEY,
    message  INTEGER NOT NULL UNIQUE
) STRICT;

-- `said` and `tools` are functions of this program. scope: w<workspace> a<agent, in hexadecimal>.
CREATE VIEW searchable AS
SELECT docs.doc AS doc, said(messages.role, messages.blocks) AS said, tools(messages.role, messages.blocks) AS tools,
       'w' || sessions.workspace || ' a' || lower(hex(sessions.agent)) AS scope
FROM docs JOIN messages ON messages.id = docs.message JOIN sessions ON sessions.body = messages.id >> 24;

CREATE VIRTUAL TABLE texts USING fts5(
    said, tools, scope, content = 'searchable', content_rowid = 'doc', tokenize = 'unicode61 remove_diacritics 2'
);
-- Bytes that are gathered before they are written: fewer pieces to merge later.
INSERT INTO texts (texts, rank) VALUES ('hashsize', 33554432);
-- Pieces are merged when there is time, a little at once, and not when one is written: that could take half a second.
INSERT INTO texts (texts, rank) VALUES ('automerge', 0);
INSERT INTO texts (texts, rank) VALUES ('crisismerge', 512);
