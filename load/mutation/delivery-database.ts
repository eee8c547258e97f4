/** Mutants of what the delivery code rests on: the sessions and rights of the database. See delivery.ts. */
import type { DeliveryMutant } from "./delivery-mutant.ts";

const sessionTests = "services/kit/sessions.int.test.ts";

export const databaseMutants: readonly DeliveryMutant[] = [
  {
    name: "redelivers an event under a key that the database takes for another order's",
    file: "relay/inbox/rows.ts",
    changes: [{ from: "requireFittingKey(envelope);", to: "" }],
    caughtBy: {
      file: "relay/inbox/parking.int.test.ts",
      name: "an event whose key ends with a blank has no effect at a redelivery either: to the database, it is another order's key",
    },
  },
  {
    name: "lets a frozen process keep its locks",
    file: "services/kit/sessions.ts",
    changes: [
      {
        from: "{ inTransactionSeconds: 6, sessionSeconds: 60 }",
        to: "{ inTransactionSeconds: 60, sessionSeconds: 60 }",
      },
    ],
    caughtBy: {
      file: "services/inventory/frozen.int.test.ts",
      name: "when an instance freezes in the middle of a batch, another goes on within 15 s; woken again, it does no harm",
    },
  },
  {
    name: "limits the time of a statement only once the statements before it are answered",
    file: "services/kit/sessions.ts",
    changes: [
      {
        from: "connection.query({ sql, values: values as unknown[] }",
        to: "connection.query({ sql, timeout: timeoutMs, values: values as unknown[] }",
      },
      { from: "if (isAnswered) return;", to: "if (isAnswered || timeoutMs > 0) return;" },
    ],
    caughtBy: {
      file: sessionTests,
      name: "a statement behind one without an answer fails in time too, and the pool goes on",
    },
  },
  {
    name: "leaves sql_mode to the server",
    file: "services/kit/sessions.ts",
    changes: [
      { from: "'+00:00', sql_mode = '", to: "'+00:00', @unused = '" },
      { from: "missing.length + unsafe.length > 0", to: "missing.length > 99" },
    ],
    caughtBy: { file: sessionTests, name: "on a server in another sql_mode, values stay values and none is cut off" },
  },
  {
    name: "lets a service change the rows of its outbox",
    file: "services/stack/rights.ts",
    changes: [{ from: 'service: ["SELECT", "INSERT"],', to: "service: everyRight," }],
    caughtBy: {
      file: "services/stack/provision.int.test.ts",
      name: "every user may do with every table what the README says, and nothing else",
    },
  },
];
