#include "cgroups/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cgroups/device_program.h"
#include "cgroups/files.h"
#include "cgroups/freeze.h"
#include "cgroups/kill.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent::cgroups {
namespace {

constexpr char kNoCores[] =
    "cpuset has no cores yet (cpuset.cpus is empty); Nomad writes them when an allocation starts";

std::string Parent(const std::string& path) { return path.substr(0, path.rfind('/')); }

bool Contains(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::vector<std::string> Words(absl::string_view text) {
  return absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
}

// 0 or the errno. v1 refuses a limit below the usage; without processes what is left is page cache
// and tmpfs pages of an earlier task, of which the former can be given up.
int WriteLimit(const std::string& dir, const LimitWrite& limit) {
  const int error = WriteValue(dir, limit.file, limit.value);
  if (error != EBUSY || limit.file != "memory.limit_in_bytes") return error;
  (void)WriteValue(dir, "memory.force_empty", "0");  // only helps; the next write decides
  return WriteValue(dir, limit.file, limit.value);
}

absl::Status LimitError(const LimitWrite& limit, int error) {
  if (error == ENOENT) {
    return absl::FailedPreconditionError(absl::StrCat(
        limit.file, ": controller '", limit.controller, "' is not enabled here, no such file"));
  }
  if (error == EBUSY) {
    return absl::FailedPreconditionError(
        absl::StrCat(limit.file, ": ", limit.value,
                     " bytes are less than files in memory of an earlier start still take"));
  }
  return ErrnoStatus(absl::StrCat(limit.file, ": '", limit.value, "'"), error);
}

// ErrnoStatus allocates, but only on failure.
absl::Status Move(int door, const std::string& name) {
  if (::write(door, "0", 1) == 1) return absl::OkStatus();
  const int error = errno;
  if (error == ENOSPC) return absl::FailedPreconditionError(absl::StrCat(name, ": ", kNoCores));
  return ErrnoStatus(name, error);
}

}  // namespace

Cgroup::Cgroup(const Hierarchy& hierarchy, std::vector<Part> parts)
    : hierarchy_(hierarchy), parts_(std::move(parts)) {
  for (const Part& part : parts_) {
    if (part.own && !Contains(dirs_, part.dir)) dirs_.push_back(part.dir);
  }
}

absl::StatusOr<Cgroup> Cgroup::Create(const Hierarchy& hierarchy, const Placement& placement,
                                      const Limits& limits) {
  ASSIGN_OR_RETURN(std::vector<Part> parts, PlanParts(hierarchy, placement));
  Cgroup cgroup(hierarchy, std::move(parts));
  absl::Cleanup undo = [&cgroup] {
    for (auto dir = cgroup.dirs_made_.rbegin(); dir != cgroup.dirs_made_.rend(); ++dir) {
      RemoveDir(*dir).IgnoreError();  // the first failure is the one to report
    }
  };
  RETURN_IF_ERROR(cgroup.MakeDirectories());
  if (!Contains(cgroup.dirs_made_, cgroup.MembersDir())) {
    RETURN_IF_ERROR(cgroup.KillAll(kLeftoversLimit), "processes of an earlier start");
  }
  RETURN_IF_ERROR(cgroup.WriteLimits(limits));
  RETURN_IF_ERROR(cgroup.WriteIoWeight(limits.io_weight), "io_weight");
  RETURN_IF_ERROR(cgroup.WriteDevices(limits.devices), "devices");
  RETURN_IF_ERROR(cgroup.CheckCpuset());
  RETURN_IF_ERROR(cgroup.OpenDoors());
  RETURN_IF_ERROR(cgroup.OpenViews());
  std::move(undo).Cancel();
  return cgroup;
}

absl::StatusOr<std::vector<std::string>> Cgroup::DirsFor(const Hierarchy& hierarchy,
                                                         const Placement& placement) {
  ASSIGN_OR_RETURN(std::vector<Part> parts, PlanParts(hierarchy, placement));
  return Cgroup(hierarchy, std::move(parts)).dirs();
}

absl::StatusOr<Cgroup> Cgroup::Open(const Hierarchy& hierarchy,
                                    const std::vector<std::string>& dirs) {
  ASSIGN_OR_RETURN(std::vector<Part> parts, PartsOf(hierarchy, dirs));
  return Cgroup(hierarchy, std::move(parts));
}

Cgroup::Doors Cgroup::doors() const {
  Doors doors;
  for (const Door& door : doors_) {
    doors.names.push_back(door.name);
    doors.fds.push_back(door.file.get());
  }
  if (IsV2() && !views_.empty()) doors.fds.push_back(views_.front().dir.get());
  return doors;
}

absl::StatusOr<Cgroup> Cgroup::FromDoors(const Hierarchy& hierarchy,
                                         const std::vector<std::string>& names,
                                         std::vector<Fd> fds) {
  Cgroup cgroup(hierarchy);
  const size_t directories = cgroup.IsV2() ? 1 : 0;
  if (names.empty() || fds.size() != names.size() + directories) {
    return absl::InvalidArgumentError(
        absl::StrCat("cgroup: ", fds.size(), " descriptors for ", names.size(), " directories"));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    cgroup.doors_.push_back({names[i], std::move(fds[i])});
  }
  if (directories > 0) cgroup.views_.push_back({"", std::move(fds.back())});
  return cgroup;
}

// --- making --------------------------------------------------------------------------------------

absl::Status Cgroup::MakeDirectories() {
  // Without Nomad's shared cpuset the task stays where its supervisor is.
  std::erase_if(
      parts_, [](const Part& part) { return !part.own && ::access(part.dir.c_str(), F_OK) != 0; });
  for (const Part& part : parts_) {
    if (!part.own) continue;
    RETURN_IF_ERROR(MakeDirsBelow(FloorOf(part), part.dir, &dirs_made_), Title(part.dir));
  }
  if (IsV2()) EnableControllers();
  return FillOwnCpuset();
}

// v1: a new cpuset has neither cores nor memory nodes, and nobody can join it.
absl::Status Cgroup::FillOwnCpuset() const {
  for (const Part& part : parts_) {
    if (part.controller != "cpuset" || !part.own) continue;
    ASSIGN_OR_RETURN(const std::string mems, ReadFileIn(part.dir, "cpuset.mems"), Title(part.dir));
    if (!mems.empty()) continue;
    const std::string parent = Parent(part.dir);
    ASSIGN_OR_RETURN(const std::string inherited, ReadFileIn(parent, "cpuset.mems"), Title(parent));
    RETURN_IF_ERROR(WriteFileIn(part.dir, "cpuset.mems", inherited), Title(part.dir));
  }
  return absl::OkStatus();
}

// v2: hands the controllers down to the task's directory. Nomad has done that in its own tree. What
// cannot be enabled shows when a limit that needs it is written.
void Cgroup::EnableControllers() const {
  std::vector<std::string> wanted;
  for (const char* controller : {"cpuset", "cpu", "io", "memory", "pids"}) {
    if (hierarchy_.Has(controller)) wanted.push_back(controller);
  }
  const std::string dir = MembersDir();
  std::string above = hierarchy_.root();
  for (absl::string_view component :
       absl::StrSplit(dir.substr(above.size() + 1), '/', absl::SkipEmpty())) {
    const absl::StatusOr<std::string> enabled = ReadFileIn(above, "cgroup.subtree_control");
    if (!enabled.ok()) return;
    const std::vector<std::string> have = Words(*enabled);
    for (const std::string& controller : wanted) {
      if (Contains(have, controller)) continue;
      (void)WriteValue(above, "cgroup.subtree_control", "+" + controller);  // see above
    }
    absl::StrAppend(&above, "/", component);
  }
}

absl::Status Cgroup::WriteLimits(const Limits& limits) const {
  for (const LimitWrite& limit : IsV2() ? LimitWritesV2(limits) : LimitWritesV1(limits)) {
    const bool shared_cpuset = std::any_of(
        parts_.begin(), parts_.end(),
        [&limit](const Part& part) { return part.controller == limit.controller && !part.own; });
    if (shared_cpuset) continue;  // its cores are Nomad's to choose
    const std::string dir = DirOf(limit.controller);
    if (dir.empty()) {
      // Reserved cores without Nomad's cpuset: Nomad has switched cgroups off. The freezer only
      // makes killing surer.
      if (!limit.required || limit.controller == "cpuset" || limit.controller == "freezer")
        continue;
      return absl::FailedPreconditionError(absl::StrCat("cgroup controller '", limit.controller,
                                                        "' is not mounted on this node; ",
                                                        limit.file, " cannot be set"));
    }
    const int error = WriteLimit(dir, limit);
    if (error != 0 && limit.required) return Annotate(LimitError(limit, error), Title(dir));
  }
  return absl::OkStatus();
}

// A weight of 0 takes back what an earlier task left in the directory; v1's is ours and new.
absl::Status Cgroup::WriteIoWeight(int64_t weight) const {
  if (weight == 0 && !IsV2()) return absl::OkStatus();
  const int64_t value = weight > 0 ? weight : kDefaultIoWeight;
  const std::string dir = DirOf("blkio");
  if (dir.empty()) {
    return absl::FailedPreconditionError("cgroup controller 'blkio' is not mounted on this node");
  }
  for (const LimitWrite& limit : IsV2() ? IoWeightWritesV2(value) : IoWeightWritesV1(value)) {
    const int error = WriteValue(dir, limit.file, limit.value);
    if (weight == 0) continue;
    if (error == 0) return absl::OkStatus();
    if (error != ENOENT) return ErrnoStatus(absl::StrCat(Title(dir), ": ", limit.file), error);
  }
  if (weight == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      Title(dir), ": this kernel has no weights for disk I/O (no ", IsV2() ? "io" : "blkio",
      ".bfq.weight, no ", IsV2() ? "io" : "blkio", ".weight); load the module bfq"));
}

// v1's directory is ours and new, so without rules there is none; Nomad's on v2 may hold a program
// of the task's earlier start.
absl::Status Cgroup::WriteDevices(const std::optional<std::vector<DeviceRule>>& rules) const {
  if (rules.has_value() && rules->size() > kMaxDeviceRules) {
    return absl::InvalidArgumentError(
        absl::StrCat(rules->size(), " device rules; at most ", kMaxDeviceRules));
  }
  const std::string dir = DirOf("devices");
  if (IsV2()) {
    ASSIGN_OR_RETURN(const Fd cgroup, OpenFile(dir, O_RDONLY | O_DIRECTORY), Title(dir));
    RETURN_IF_ERROR(DetachDevicePrograms(cgroup.get()), Title(dir));
    if (!rules.has_value()) return absl::OkStatus();
    return Annotate(AttachDeviceProgram(cgroup.get(), DeviceProgram(*rules)), Title(dir));
  }
  if (!rules.has_value()) return absl::OkStatus();
  if (dir.empty()) {
    return absl::FailedPreconditionError("cgroup controller 'devices' is not mounted on this node");
  }
  RETURN_IF_ERROR(WriteFileIn(dir, "devices.deny", "a"), Title(dir));
  for (const DeviceRule& rule : *rules) {
    RETURN_IF_ERROR(WriteFileIn(dir, "devices.allow", DeviceLine(rule)), Title(dir), ": '",
                    DeviceLine(rule), "'");
  }
  return absl::OkStatus();
}

// Says it before the task is half started; the kernel would only say ENOSPC at the join.
absl::Status Cgroup::CheckCpuset() const {
  const std::string dir = IsV2() ? "" : DirOf("cpuset");
  if (dir.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string cores, ReadFileIn(dir, "cpuset.cpus"), Title(dir));
  if (!cores.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(Title(dir), ": ", kNoCores));
}

// --- joining -------------------------------------------------------------------------------------

absl::Status Cgroup::OpenDoors() {
  const std::string file = IsV2() ? "/cgroup.procs" : "/tasks";
  std::vector<std::string> opened;
  for (const Part& part : parts_) {
    if (Contains(opened, part.dir)) continue;
    opened.push_back(part.dir);
    ASSIGN_OR_RETURN(Fd door, OpenFile(part.dir + file, O_WRONLY), Title(part.dir));
    doors_.push_back({Title(part.dir), std::move(door)});
  }
  return absl::OkStatus();
}

// The freezer, where KillAll looks, is the first to be joined: a process that is killed on the way
// in is not overlooked, and no directory stays because it was still inside.
absl::Status Cgroup::Enter() const {
  if (doors_.empty()) return absl::FailedPreconditionError("cgroup: opened for reading only");
  for (const Door& door : doors_) {
    if (absl::Status moved = Move(door.file.get(), door.name); !moved.ok()) {
      return Annotate(moved, "join");
    }
  }
  return absl::OkStatus();
}

absl::Status Cgroup::OpenViews() {
  const auto open_view = [this](const std::string& name, const std::string& dir) -> absl::Status {
    if (dir.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(Fd fd, OpenFile(dir, O_PATH | O_DIRECTORY), Title(dir));
    views_.push_back({name, std::move(fd)});
    return absl::OkStatus();
  };
  if (IsV2()) return open_view("", MembersDir());
  for (const std::string& controller : ViewNames()) {
    const std::string dir = DirOf(controller);
    RETURN_IF_ERROR(open_view(controller, dir.empty() ? hierarchy_.OuterPath(controller) : dir));
  }
  return absl::OkStatus();
}

std::vector<std::string> Cgroup::ViewNames() { return {"memory", "cpu", "cpuacct", "cpuset"}; }

std::vector<Cgroup::View> Cgroup::views() const {
  std::vector<View> views;
  for (const OpenView& view : views_) views.push_back({view.name, view.dir.get()});
  return views;
}

absl::StatusOr<int> Cgroup::clone_into_fd() const {
  if (doors_.empty()) return absl::FailedPreconditionError("cgroup: opened for reading only");
  return IsV2() ? views_.front().dir.get() : -1;
}

// --- reading -------------------------------------------------------------------------------------

absl::Status Cgroup::CheckExists() const {
  const std::string dir = MembersDir();
  if (::access(dir.c_str(), F_OK) != 0) return ErrnoStatus(Title(dir));
  return absl::OkStatus();
}

absl::StatusOr<Usage> Cgroup::ReadUsage() const {
  RETURN_IF_ERROR(CheckExists());
  return IsV2() ? UsageFromV2(Reader()) : UsageFromV1(Reader());
}

absl::StatusOr<Ceiling> Cgroup::ReadCeiling() const {
  RETURN_IF_ERROR(CheckExists());
  return IsV2() ? CeilingFromV2(Reader()) : CeilingFromV1(Reader());
}

absl::StatusOr<Stalls> Cgroup::ReadStalls() const {
  RETURN_IF_ERROR(CheckExists());
  return IsV2() ? StallsFromV2(Reader()) : Stalls();
}

absl::StatusOr<Gauges> Cgroup::OpenGauges() const {
  ASSIGN_OR_RETURN(const Ceiling ceiling, ReadCeiling());
  // A controller that this host lacks, or the task does not have, tells nothing.
  const auto open = [this](const char* controller, const char* v1_file, const char* v2_file) {
    const std::string dir = IsV2() ? MembersDir() : DirOf(controller);
    if (dir.empty()) return Fd();
    return OpenFile(absl::StrCat(dir, "/", IsV2() ? v2_file : v1_file), O_RDONLY).value_or(Fd());
  };
  return Gauges(hierarchy_.version(),
                {.pids = open("pids", "pids.current", "pids.current"),
                 .memory = open("memory", "memory.usage_in_bytes", "memory.current"),
                 .memory_stat = open("memory", "memory.stat", "memory.stat"),
                 .freezer = open("freezer", "freezer.state", "cgroup.freeze")},
                ceiling);
}

absl::StatusOr<uint64_t> Cgroup::OomKills() const {
  const std::string dir = DirOf("memory");
  const char* file = IsV2() ? "memory.events" : "memory.oom_control";
  if (dir.empty()) return absl::NotFoundError("cgroup controller 'memory' is not mounted");
  ASSIGN_OR_RETURN(const std::string text, ReadFileIn(dir, file), Title(dir));
  const std::optional<uint64_t> kills = ParseKeyed(text, "oom_kill");
  if (!kills.has_value()) {
    return absl::NotFoundError(absl::StrCat(Title(dir), ": ", file, ": no line 'oom_kill'"));
  }
  return *kills;
}

// cgroup v1's way of binding an eventfd (Documentation/admin-guide/cgroup-v1/memory.rst, 9 and 10).
absl::StatusOr<OomWatch> Cgroup::WatchOom() const {
  const std::string dir = DirOf("memory");
  if (dir.empty()) return absl::NotFoundError("cgroup controller 'memory' is not mounted");
  if (IsV2()) {
    ASSIGN_OR_RETURN(Fd events, OpenFile(dir + "/memory.events", O_RDONLY), Title(dir));
    return OomWatch(std::move(events), /*is_v2=*/true);
  }
  ASSIGN_OR_RETURN(const Fd control, OpenFile(dir + "/memory.oom_control", O_RDONLY), Title(dir));
  Fd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return ErrnoStatus("eventfd");
  RETURN_IF_ERROR(
      WriteFileIn(dir, "cgroup.event_control", absl::StrCat(event.get(), " ", control.get())),
      Title(dir));
  return OomWatch(std::move(event), /*is_v2=*/false);
}

absl::StatusOr<std::vector<pid_t>> Cgroup::Members() const {
  const std::string dir = MembersDir();
  ASSIGN_OR_RETURN(std::vector<pid_t> members, ReadMembers(dir), Title(dir));
  return members;
}

// --- ending --------------------------------------------------------------------------------------

absl::Status Cgroup::Freeze(std::chrono::milliseconds limit) const {
  if (IsV2()) return Annotate(FreezeV2(MembersDir(), limit), Title(MembersDir()));
  const std::string freezer = DirOf("freezer");
  if (freezer.empty()) {
    return absl::FailedPreconditionError("cgroup controller 'freezer' is not mounted on this node");
  }
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!FreezeV1(freezer)) {
    if (std::chrono::steady_clock::now() < deadline) continue;
    RETURN_IF_ERROR(ThawV1(freezer), Title(freezer));
    return absl::DeadlineExceededError(
        absl::StrCat(Title(freezer), ": not frozen after ", limit.count(), " ms; thawed again"));
  }
  return absl::OkStatus();
}

absl::Status Cgroup::Thaw() const {
  const std::string dir = MembersDir();
  return Annotate(IsV2() ? ThawV2(dir) : ThawV1(dir), Title(dir));
}

absl::Status Cgroup::KillAll(std::chrono::milliseconds limit) const {
  const std::string dir = MembersDir();
  const absl::Status killed =
      IsV2() ? KillAllV2(dir, limit) : KillAllV1(DirOf("freezer"), dir, limit);
  return Annotate(killed, Title(dir));
}

absl::StatusOr<size_t> Cgroup::KillChosen(absl::FunctionRef<bool(pid_t)> doomed,
                                          std::chrono::milliseconds limit) const {
  const std::string dir = MembersDir();
  // Of a crowd that cannot be made to stand most are found all the same.
  Freeze(kFreezeLimit).IgnoreError();
  const absl::StatusOr<std::vector<pid_t>> chosen = cgroups::KillChosen(dir, doomed);
  RETURN_IF_ERROR(Thaw());
  RETURN_IF_ERROR(chosen.status(), Title(dir));
  RETURN_IF_ERROR(AwaitGone(dir, *chosen, limit), Title(dir));
  return chosen->size();
}

absl::Status Cgroup::Remove() const {
  const bool nomad_is_here = ::access(NomadsMark().c_str(), F_OK) == 0;
  absl::Status first;
  for (const Part& part : parts_) {
    if (!part.own) continue;
    const bool parents_are_ours = !part.nomads || !nomad_is_here;
    if (!parents_are_ours && !Contains(dirs_made_, part.dir)) continue;
    first.Update(Annotate(RemoveDir(part.dir), Title(part.dir)));
    if (parents_are_ours) RemoveEmptyParents(part);
  }
  return first;
}

// One that another task uses stays; the last user removes it.
void Cgroup::RemoveEmptyParents(const Part& part) const {
  const std::string floor = FloorOf(part);
  for (std::string dir = Parent(part.dir); dir.size() > floor.size(); dir = Parent(dir)) {
    if (::rmdir(dir.c_str()) != 0 && errno != ENOENT) return;
  }
}

// A directory that Nomad makes when its client starts and that we never make.
std::string Cgroup::NomadsMark() const {
  return IsV2() ? hierarchy_.root() + "/nomad.slice/reserve.slice"
                : hierarchy_.ControllerPath("cpuset") + "/nomad";
}

// --- where ---------------------------------------------------------------------------------------

std::string Cgroup::DirOf(const std::string& controller) const {
  for (const Part& part : parts_) {
    if (IsV2() || part.controller == controller) return part.dir;
  }
  return "";
}

std::string Cgroup::MembersDir() const {
  const std::string freezer = DirOf("freezer");
  return freezer.empty() && !dirs_.empty() ? dirs_.front() : freezer;
}

// A cpuset whose parent is missing would get no cores: there only the task's own is made.
std::string Cgroup::FloorOf(const Part& part) const {
  return part.controller == "cpuset" && !IsV2() ? Parent(part.dir)
                                                : hierarchy_.ControllerPath(part.controller);
}

FileReader Cgroup::Reader() const {
  return
      [this](const std::string& controller, const std::string& file) -> std::optional<std::string> {
        const std::string dir = DirOf(controller);
        if (dir.empty()) return std::nullopt;
        absl::StatusOr<std::string> text = ReadFileIn(dir, file);
        if (!text.ok()) return std::nullopt;  // which files there are differs from kernel to kernel
        return *std::move(text);
      };
}

std::string Cgroup::Title(const std::string& dir) const {
  return absl::StrCat("cgroup ", hierarchy_.Short(dir));
}

}  // namespace jenkins_agent::cgroups
