import type { Verb } from "../context.ts";
import { archiveRunVerb, archiveStatusVerb } from "./archive.ts";
import { auditVerb } from "./audit.ts";
import { backlogVerb, deadShowVerb, deadVerb, discardVerb, republishVerb, retryVerb } from "./events.ts";
import { parkedRedeliverVerb, parkedShowVerb, parkedVerb } from "./parked.ts";
import { stuckVerb } from "./stuck.ts";

/** All verbs, in the order of the usage. */
export const verbs: readonly Verb[] = [
  stuckVerb,
  backlogVerb,
  deadVerb,
  deadShowVerb,
  retryVerb,
  discardVerb,
  parkedVerb,
  parkedShowVerb,
  parkedRedeliverVerb,
  republishVerb,
  archiveStatusVerb,
  archiveRunVerb,
  auditVerb,
];
