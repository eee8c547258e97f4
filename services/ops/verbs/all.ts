import type { Verb } from "../context.ts";
import { archiveRun, archiveStatusVerb } from "./archive.ts";
import { auditVerb } from "./audit.ts";
import { backlog, dead, deadShow, discard, replayVerb, retry } from "./events.ts";
import { parked, parkedReplay, parkedShow } from "./parked.ts";
import { stuckVerb } from "./stuck.ts";

/** All verbs, in the order of the usage. */
export const verbs: readonly Verb[] = [
  backlog,
  stuckVerb,
  dead,
  deadShow,
  retry,
  discard,
  parked,
  parkedShow,
  parkedReplay,
  replayVerb,
  archiveStatusVerb,
  archiveRun,
  auditVerb,
];
