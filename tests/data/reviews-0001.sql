BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE cases (
	session_id VARCHAR(32) NOT NULL, 
	study_id VARCHAR(200) NOT NULL, 
	context JSON NOT NULL, 
	reports JSON NOT NULL, 
	CONSTRAINT pk_cases PRIMARY KEY (session_id, study_id), 
	CONSTRAINT fk_cases_session_id FOREIGN KEY(session_id) REFERENCES sessions (id)
);
INSERT INTO "cases" VALUES('4a3f5984db39488a9a97975ddad5160a','s000','{"age": "60"}','{"reference": "The heart is enlarged. There is a small left pleural effusion.", "pair-one": "The heart is normal in size. The lungs are clear.", "pair-two": "The heart is enlarged. No pneumothorax."}');
INSERT INTO "cases" VALUES('4a3f5984db39488a9a97975ddad5160a','s001','{"age": "60"}','{"reference": "The heart is enlarged. There is a small left pleural effusion.", "pair-one": "The heart is normal in size. The lungs are clear.", "pair-two": "The heart is enlarged. No pneumothorax."}');
CREATE TABLE events (
	sequence INTEGER NOT NULL, 
	at VARCHAR(32) NOT NULL, 
	actor VARCHAR(200) NOT NULL, 
	action VARCHAR(20) NOT NULL, 
	session_id VARCHAR(32), 
	screen_id VARCHAR(32), 
	slot VARCHAR(200), 
	"key" VARCHAR(500) NOT NULL, 
	request VARCHAR(64) NOT NULL, 
	asked JSON, 
	"before" JSON, 
	"after" JSON, 
	undoes INTEGER, 
	hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (sequence), 
	CONSTRAINT uq_events_key UNIQUE ("key")
);
INSERT INTO "events" VALUES(1,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/user/root','01e0017edbd5d4f02483f27298439454ef52072d357ea280247623e6487b36f2',NULL,NULL,'{"name": "root", "role": "admin"}',NULL,'0eaaf6cd62e66a3a804dc4edfd83be5853cb211c328f8be9cff72e8e1f7ea8ea');
INSERT INTO "events" VALUES(2,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/a536a27e95fd43868e4c75f3da678cc5','29cb2a12901788a8b04f8f177f6d509171f61b4a9bd4a1ff4fb13c56cb27a500',NULL,NULL,'{"name": "anna", "role": "reader"}',NULL,'d4ae1835409a0e4ca4a5ac9785579f0370f785cd50cd590f994c230803a4c3ac');
INSERT INTO "events" VALUES(3,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/aa2d2ef1466e42989ff7196323105b85','72cdcac1f208b726f5c6447e32ef685099e3fa605b43ca7765e42fef732f9462',NULL,NULL,'{"name": "boris", "role": "reader"}',NULL,'85ce3a0c4dfab178dc828f9b1875ae506a527da036953c24fe1e2fe99852f414');
INSERT INTO "events" VALUES(4,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/9e57d4edace146229aeb62cdae03c032','95507907145ef292c02a5d0abbbbda3b12180c5e7262e3bea4508eeb039b1832',NULL,NULL,'{"name": "carla", "role": "reader"}',NULL,'8b9156e3c6887cb82bafe915b229c2b51c636d7f97112642dbaeb647e0926a15');
INSERT INTO "events" VALUES(5,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/9908b65de5324bb788000b5b9739c18a','a9c0dab9e2ffe1da9e03bdf7ad113c99ccb634e34849f6551f1510e6b8b70614',NULL,NULL,'{"name": "rita", "role": "researcher"}',NULL,'e0cf6abf05ceb934b1e68f88bf38b99b4d9b2424a4bf6bf81cb985a784d7a821');
INSERT INTO "events" VALUES(6,'2026-11-25T09:00:00.000000+00:00','root','user',NULL,NULL,NULL,'root/d8ee80d515e8447d92a40d5424de3fef','57a0bdf3644aea03f6951a347e8807cb8c7e3ce653e69571ef49996de2bcc56b',NULL,NULL,'{"name": "ralf", "role": "researcher"}',NULL,'59564bc5ee8f21f52c92bb2efa7af0deb3da950e64139852013cb640e77bcad2');
INSERT INTO "events" VALUES(7,'2026-11-25T09:00:00.000000+00:00','rita','create','4a3f5984db39488a9a97975ddad5160a',NULL,NULL,'rita/create/4a3f5984db39488a9a97975ddad5160a','a0cd8dd9272ac8f19c665ef69fa5ac109dbe3059a0563ceb6e2f093fcecb0a5e',NULL,NULL,'{"session": {"id": "4a3f5984db39488a9a97975ddad5160a", "title": "Trial", "design": {"title": "Trial", "rubric": "report-quality", "readers": ["anna"], "models": ["reference", "pair-one"], "studies": {"how": "random", "count": 0, "ids": []}, "seed": 0, "repeats": 0, "washout": 10, "reports_per_screen": 0, "comparisons": 0, "minutes": 0, "instructions": "", "explanation": "", "source": ""}, "state": "open", "owner": "rita"}, "cases": "fdbaf4e3b30743b3273cbcf0de2eacb31a34833ed2e05892092f1d1ace8089c9", "screens": {"anna": 4}}',NULL,'f5f6b64d26a2354e09da79af2fc43ddc605c7c21328ec3954ae9940afec314f1');
INSERT INTO "events" VALUES(8,'2026-11-25T09:00:00.000000+00:00','anna','open','4a3f5984db39488a9a97975ddad5160a','2bb1ffbe8a35417494502879e75ffae8',NULL,'anna/open/2bb1ffbe8a35417494502879e75ffae8','fcb6ba6174490a504a541f415391c17788986082fe189200158399ad39840f56',NULL,NULL,'{"opened": true}',NULL,'00f78f31de636adc6a40edc6284d1d83d6e5b79573919e4d401bb1fe025aef80');
INSERT INTO "events" VALUES(9,'2026-11-25T09:00:00.000000+00:00','anna','mark','4a3f5984db39488a9a97975ddad5160a','2bb1ffbe8a35417494502879e75ffae8','error/B/6f51ad37db2cf4ed600dcc9def20f0b7','anna/old 0','55414d5feed53f16ea7f091a2c28aa0381e4bd000a53540f92f74dbfe8cb5f96',NULL,NULL,'{"kind": "error", "report": "B", "value": {"error": "omission", "significant": true}, "version": 1, "deleted": false}',NULL,'8a3b70e4d77ce3380ff35f2370ab92d1df5362a68737519dc8f520cac506d1da');
INSERT INTO "events" VALUES(10,'2026-11-25T09:00:00.000000+00:00','anna','open','4a3f5984db39488a9a97975ddad5160a','83f468274b54431e81953b29da7d3e0a',NULL,'anna/open/83f468274b54431e81953b29da7d3e0a','fcb6ba6174490a504a541f415391c17788986082fe189200158399ad39840f56',NULL,NULL,'{"opened": true}',NULL,'585037a6bdc0f42bdcedd2763bb80449b678e7a6eaae7fc98c260279bc219f8c');
INSERT INTO "events" VALUES(11,'2026-11-25T09:00:00.000000+00:00','anna','mark','4a3f5984db39488a9a97975ddad5160a','83f468274b54431e81953b29da7d3e0a','error/A/70b274c29413015fc59d24c0688843ff','anna/old 1','6ab4175e7c1ffd1501478a5584c72779408b2cf209d35efe8b38c7a0f9ee045c',NULL,NULL,'{"kind": "error", "report": "A", "value": {"error": "omission", "significant": true}, "version": 1, "deleted": false}',NULL,'a926c586c71a5dd8d9c945dd93415aa646f67636bcf1f4da1e0169b805565477');
INSERT INTO "events" VALUES(12,'2026-11-25T09:00:00.000000+00:00','anna','annotate','4a3f5984db39488a9a97975ddad5160a','2bb1ffbe8a35417494502879e75ffae8',NULL,'anna/done','75d29a7dfc089b6cdbe72899e40ba75006b6276596c6deffc623de4efbf58163',NULL,'{"state": "pending", "skip_reason": "", "flagged": false, "comment": "", "version": 1}','{"state": "done", "skip_reason": "", "flagged": false, "comment": "first release", "version": 2}',NULL,'d5619acca2990a404b9774b7e9732e5b9e1c823fc39b884d6fc23d5be198142a');
CREATE TABLE marks (
	screen_id VARCHAR(32) NOT NULL, 
	slot VARCHAR(200) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	report VARCHAR(20) NOT NULL, 
	value JSON NOT NULL, 
	version INTEGER NOT NULL, 
	deleted BOOLEAN NOT NULL, 
	CONSTRAINT pk_marks PRIMARY KEY (screen_id, slot), 
	CONSTRAINT fk_marks_screen_id FOREIGN KEY(screen_id) REFERENCES screens (id)
);
INSERT INTO "marks" VALUES('2bb1ffbe8a35417494502879e75ffae8','error/B/6f51ad37db2cf4ed600dcc9def20f0b7','error','B','{"error": "omission", "significant": true}',1,0);
INSERT INTO "marks" VALUES('83f468274b54431e81953b29da7d3e0a','error/A/70b274c29413015fc59d24c0688843ff','error','A','{"error": "omission", "significant": true}',1,0);
CREATE TABLE screens (
	id VARCHAR(32) NOT NULL, 
	session_id VARCHAR(32) NOT NULL, 
	reader VARCHAR(200) NOT NULL, 
	position INTEGER NOT NULL, 
	study_id VARCHAR(200) NOT NULL, 
	shown JSON NOT NULL, 
	repeats VARCHAR(32), 
	disputed JSON, 
	image_sha256 VARCHAR(64) NOT NULL, 
	bundles JSON NOT NULL, 
	software VARCHAR(50) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	skip_reason TEXT NOT NULL, 
	flagged BOOLEAN NOT NULL, 
	comment TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	opened BOOLEAN NOT NULL, 
	seconds FLOAT NOT NULL, 
	CONSTRAINT pk_screens PRIMARY KEY (id), 
	CONSTRAINT uq_screens_session_id_reader_position UNIQUE (session_id, reader, position), 
	CONSTRAINT fk_screens_reader FOREIGN KEY(reader) REFERENCES users (name), 
	CONSTRAINT fk_screens_repeats FOREIGN KEY(repeats) REFERENCES screens (id), 
	CONSTRAINT fk_screens_session_id_study_id FOREIGN KEY(session_id, study_id) REFERENCES cases (session_id, study_id)
);
INSERT INTO "screens" VALUES('2bb1ffbe8a35417494502879e75ffae8','4a3f5984db39488a9a97975ddad5160a','anna',0,'s000','[["B", "pair-one"]]',NULL,NULL,'0000000000000000000000000000000000000000000000000000000000000000','{"pair-one": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}','0.1.0','done','',0,'first release',2,1,0.0);
INSERT INTO "screens" VALUES('83f468274b54431e81953b29da7d3e0a','4a3f5984db39488a9a97975ddad5160a','anna',1,'s000','[["A", "reference"]]',NULL,NULL,'0000000000000000000000000000000000000000000000000000000000000000','{"reference": ""}','0.1.0','pending','',0,'',1,1,0.0);
INSERT INTO "screens" VALUES('15b416106b054ca8a040e1135b2dbda5','4a3f5984db39488a9a97975ddad5160a','anna',2,'s001','[["B", "pair-one"]]',NULL,NULL,'0000000000000000000000000000000000000000000000000000000000000001','{"pair-one": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}','0.1.0','pending','',0,'',1,0,0.0);
INSERT INTO "screens" VALUES('01b57b383e56422b9420064c47652c46','4a3f5984db39488a9a97975ddad5160a','anna',3,'s001','[["A", "reference"]]',NULL,NULL,'0000000000000000000000000000000000000000000000000000000000000001','{"reference": ""}','0.1.0','pending','',0,'',1,0,0.0);
CREATE TABLE sessions (
	id VARCHAR(32) NOT NULL, 
	title VARCHAR(200) NOT NULL, 
	design JSON NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	created VARCHAR(32) NOT NULL, 
	software VARCHAR(50) NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (id), 
	CONSTRAINT fk_sessions_owner FOREIGN KEY(owner) REFERENCES users (name)
);
INSERT INTO "sessions" VALUES('4a3f5984db39488a9a97975ddad5160a','Trial','{"title": "Trial", "rubric": "report-quality", "readers": ["anna"], "models": ["reference", "pair-one"], "studies": {"how": "random", "count": 0, "ids": []}, "seed": 0, "repeats": 0, "washout": 10, "reports_per_screen": 0, "comparisons": 0, "minutes": 0, "instructions": "", "explanation": "", "source": ""}','open','rita','2026-11-25T09:00:00+00:00','0.1.0');
CREATE TABLE users (
	name VARCHAR(200) NOT NULL, 
	role VARCHAR(20) NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (name)
);
INSERT INTO "users" VALUES('root','admin');
INSERT INTO "users" VALUES('anna','reader');
INSERT INTO "users" VALUES('boris','reader');
INSERT INTO "users" VALUES('carla','reader');
INSERT INTO "users" VALUES('rita','researcher');
INSERT INTO "users" VALUES('ralf','researcher');
CREATE INDEX ix_events_session_id ON events (session_id);
CREATE INDEX ix_events_screen_id ON events (screen_id);
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE sequence = NEW.sequence OR key = NEW.key) BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
COMMIT;
