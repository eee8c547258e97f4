import { auditVerb } from "../../load/audit/verb.ts";
import { stuckVerb } from "../../load/stuck/verb.ts";
import { archiveRun, archiveStatusVerb } from "./ops-archive.ts";
import type { Verb } from "./ops-context.ts";
import { backlog, dead, deadShow, discard, replayVerb, retry } from "./ops-events.ts";
import { parked, parkedReplay, parkedShow } from "./ops-parked.ts";

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
