import type { Change } from "./change.ts";

/** One mistake, made by changes to one file. */
export interface DeliveryMutant {
  readonly name: string;
  readonly file: string;
  readonly changes: readonly Change[];
  readonly caughtBy: NamedTest;
}

/** A test, by its file and its own name. */
export interface NamedTest {
  readonly file: string;
  readonly name: string;
}
