import { expect, test } from "bun:test";
import { HostReports } from "../../../src/server/host-reports.ts";
import type { Session } from "../../../src/server/session.ts";
import { ManualClock } from "../../../src/transport/clock.ts";

const report = {
  segments: 1,
  segment_bytes: 4096,
  used_bytes: 0,
  high_water_bytes: 4096,
  leases_given: 0,
  leases_held: 2,
  copied_bytes: 8,
  forwarded_bytes: 16,
};

function newReports() {
  const clock = new ManualClock();
  const asked: number[] = [];
  const ownedBy = () => ({ segments: 3, bytes: 12288 });
  const notify = (host: Session, name: string) => void (name === "tell_memory" && asked.push(host.peer));
  return { clock, asked, reports: new HostReports({ clock, notify, ownedBy }) };
}

function newHost(peer: number, features = ["segments"]): Session {
  return { peer, hello: { name: `host ${peer}`, pid: 10 + peer, features } } as unknown as Session;
}

test("a host is asked, and what it says stands beside what the server knows of it", async () => {
  const { asked, reports } = newReports();
  const host = newHost(1);
  const looked = reports.look([host, newHost(2, [])]);
  expect(asked).toEqual([1]);
  reports.take(host, report);
  await looked;
  expect(reports.status(host)).toEqual({
    peer: 1,
    name: "host 1",
    pid: 11,
    segments: 3,
    segment_bytes: 12288,
    memory: report,
  });
});

test("a host that does not answer, or has left, holds nobody up", async () => {
  const { clock, reports } = newReports();
  const [silent, leaving] = [newHost(1), newHost(2)];
  const looked = reports.look([leaving]);
  reports.left(leaving);
  await looked;
  const late = reports.look([silent]);
  clock.advance(1_000);
  await late;
  expect(reports.status(silent).memory).toBeNull();
});
