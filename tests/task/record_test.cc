#include "driver/task/record.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

constexpr char kBoot[] = "boot-1";
const StatePaths& Paths() {
  static const StatePaths paths("/state");
  return paths;
}

pb::TaskRecord Valid() {
  pb::TaskRecord record;
  record.set_version(kRecordVersion);
  record.set_task_id("alloc/agent/1");
  record.set_task_dir(Paths().Task("alloc/agent/1"));
  record.set_boot_id(kBoot);
  return record;
}

absl::StatusOr<pb::TaskRecord> Decode(const pb::TaskRecord& record) {
  return DecodeRecord(record.SerializeAsString(), Paths(), kBoot);
}

TEST(Record, RoundTrip) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskRecord record, Decode(Valid()));
  EXPECT_EQ(record.task_id(), "alloc/agent/1");
}

TEST(Record, RefusesWhatIsNotItsOwn) {
  EXPECT_THAT(DecodeRecord("", Paths(), kBoot),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  EXPECT_THAT(DecodeRecord("{\"json\": 1}", Paths(), kBoot),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  const std::string bytes = Valid().SerializeAsString();
  EXPECT_THAT(DecodeRecord(bytes.substr(0, bytes.size() / 2), Paths(), kBoot),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
}

TEST(Record, RefusesANewerVersionAnotherPathAndAnEarlierBoot) {
  pb::TaskRecord newer = Valid();
  newer.set_version(kRecordVersion + 1);
  EXPECT_THAT(Decode(newer),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("newer driver")));
  pb::TaskRecord elsewhere = Valid();
  elsewhere.set_task_dir("/etc");
  EXPECT_THAT(Decode(elsewhere),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("'/etc'")));
  EXPECT_THAT(DecodeRecord(Valid().SerializeAsString(), Paths(), "boot-2"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("rebooted")));
}

TEST(Record, AProcessIsNamedByPidAndStartTime) {
  ASSERT_OK_AND_ASSIGN(const uint64_t start_time, ProcessStartTime(::getpid()));
  pb::TaskRecord record = Valid();
  record.set_supervisor_pid(::getpid());
  record.set_supervisor_start_time(start_time);
  EXPECT_TRUE(SupervisorAlive(record));
  record.set_supervisor_start_time(start_time - 1);
  EXPECT_FALSE(SupervisorAlive(record));
}

TEST(Record, AZombieHasEnded) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, child, &info, WEXITED | WNOWAIT), 0);
  EXPECT_THAT(ProcessStartTime(child),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace jenkins_agent
