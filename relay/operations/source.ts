import type { Database } from "../../services/kit/database.ts";
import type { SourceConfig } from "../outbox/config.ts";

/** A source as an operator's commands reach it: through the operator's own database account, not the relay's. */
export interface OperatedSource extends SourceConfig {
  readonly database: Database;
}
