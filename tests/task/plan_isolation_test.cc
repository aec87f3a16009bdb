// What a job, Nomad and the operator's policy together make of a sandbox.
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "driver/sandbox/seccomp.h"
#include "driver/sandbox/template_plan.h"
#include "driver/task/plan.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

auto Refused(const std::string& message) {
  return StatusIs(absl::StatusCode::kInvalidArgument, message);
}

class PlanIsolation : public ::testing::Test {
 protected:
  PlanIsolation() {
    options_.command = "/bin/true";
    task_.set_id("alloc-1/agent/abc");
    task_.set_alloc_id("alloc-1");
    task_.set_name("agent");
    task_.set_alloc_dir("/data/alloc-1");
    (*task_.mutable_env())["NOMAD_ALLOC_NAME"] = "ci.group[0]";
    task_.mutable_resources()->mutable_allocated_resources()->mutable_memory()->set_memory_mb(2000);
    host_.hard_limits = {
        {RLIMIT_NOFILE, 4096}, {RLIMIT_NPROC, 1000}, {RLIMIT_STACK, RLIM_INFINITY}};
    host_.memory_bytes = uint64_t{8} << 30;
    host_.capabilities = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_KILL};
    host_.resolv_conf = "nameserver 9.9.9.9\nsearch host.example\noptions timeout:1\n";
  }

  absl::StatusOr<pb::LaunchSpec> RunAll() {
    PlanInput input{.options = options_, .task = task_, .filters = filters_};
    input.user.set_uid(uid_);
    input.user.set_gid(1001);
    input.user.set_name("ci");
    input.user.set_home("/nonexistent");
    input.task_dir = "/state/tasks/0";
    input.policy = policy_;
    input.host = host_;
    return PlanTask(input);
  }
  absl::StatusOr<pb::SandboxSpec> Run() {
    const absl::StatusOr<pb::LaunchSpec> spec = RunAll();
    if (!spec.ok()) return spec.status();
    return spec->sandbox();
  }
  Isolation& isolation() { return options_.isolation; }

  MountBlock& AddBind(const std::string& source, const std::string& target) {
    return isolation().mounts.emplace_back(
        MountBlock{.type = "bind", .source = source, .target = target});
  }

  TaskConfig options_;
  TaskFilters filters_;
  NomadTask task_;
  IsolationPolicy policy_;
  HostLimits host_;
  uint32_t uid_ = 1000;
};

// `plan`: of a task (SandboxSpec), or what it shares (TemplateSpec).
template <typename Plan>
const pb::MountSpec* FindMount(const Plan& plan, const std::string& target) {
  for (const pb::MountSpec& mount : plan.mounts()) {
    if (mount.target() == target) return &mount;
  }
  return nullptr;
}

// `path`: the template has a link there to the task's own file.
std::string FileContent(const pb::SandboxSpec& sandbox, const std::string& path) {
  const pb::MountSpec* files = FindMount(sandbox, kFilesDir);
  if (files == nullptr) return "(no files)";
  for (const pb::FileSpec& file : files->files()) {
    if (file.name() == path.substr(path.rfind('/') + 1)) return file.content();
  }
  return "(none)";
}

// ---- mounts ----

TEST_F(PlanIsolation, SourcesOfTheTaskLieInItsDirectories) {
  AddBind("local/cache", "/cache").readonly = true;
  AddBind("secrets/key", "/key");
  AddBind("alloc/data/x", "/shared");
  ASSERT_OK_AND_ASSIGN(const pb::SandboxSpec sandbox, Run());
  const pb::MountSpec* cache = FindMount(sandbox, "/cache");
  ASSERT_NE(cache, nullptr);
  EXPECT_EQ(cache->source(), "/data/alloc-1/agent/local/cache");
  EXPECT_EQ(cache->base(), "/data/alloc-1");
  EXPECT_TRUE(cache->read_only());
  EXPECT_TRUE(cache->no_links());
  EXPECT_EQ(cache->propagation(), pb::MountSpec::PRIVATE);
  EXPECT_EQ(FindMount(sandbox, "/key")->source(), "/data/alloc-1/agent/secrets/key");
  EXPECT_EQ(FindMount(sandbox, "/shared")->source(), "/data/alloc-1/alloc/data/x");
}

TEST_F(PlanIsolation, WhatIsNomadsInTheTaskDirectoryIsNoSource) {
  for (const std::string source : {"private/token", "tmp", "localx", "locals/x"}) {
    isolation().mounts.clear();
    AddBind(source, "/x");
    EXPECT_THAT(Run(), Refused("mount[0].source: \"" + source +
                               "\" is not below local/, secrets/ or alloc/, which are the task's "
                               "own"));
  }
}

TEST_F(PlanIsolation, HostPathsAreTheOperatorsDecision) {
  AddBind("/srv/cache/maven", "/m2");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kPermissionDenied,
                              "mount[0].source: \"/srv/cache/maven\" is a path of the host that "
                              "the plugin's option allow_host_paths = [] does not cover; use a "
                              "path below local/, secrets/ or alloc/, or let the operator add it"));
  policy_.allow_host_paths = {"/srv/cachet", "/srv/cache/m"};
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kPermissionDenied,
                              HasSubstr("allow_host_paths = [/srv/cachet, /srv/cache/m]")));
  policy_.allow_host_paths = {"/srv/cache/"};
  ASSERT_OK_AND_ASSIGN(const pb::SandboxSpec sandbox, Run());
  EXPECT_EQ(FindMount(sandbox, "/m2")->source(), "/srv/cache/maven");
  EXPECT_EQ(FindMount(sandbox, "/m2")->base(), "/srv/cache");
  policy_.allow_host_paths = {"/"};
  EXPECT_OK(Run());
  isolation().mounts[0].source = "/proc/1";
  EXPECT_THAT(Run(), Refused("mount[0].source: \"/proc/1\" is the host's; the sandbox has a /proc "
                             "of its own"));
}

TEST_F(PlanIsolation, TmpfsIsBoundedAndNotExecutable) {
  isolation().mounts.push_back({.type = "tmpfs", .target = "/scratch"});
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  const pb::MountSpec* scratch = FindMount(sandbox, "/scratch");
  ASSERT_NE(scratch, nullptr);
  EXPECT_EQ(scratch->size_bytes(), uint64_t{200} << 20);
  EXPECT_EQ(scratch->mode(), 01777u);
  EXPECT_TRUE(scratch->no_exec());
  isolation().mounts[0].tmpfs_size = (int64_t{8} << 30) + 1;
  EXPECT_THAT(Run(), Refused("mount[0].tmpfs_options.size: 8589934593 bytes are more than this "
                             "host's memory, 8589934592 bytes"));
}

TEST_F(PlanIsolation, VolumesKeepPropagationAndOrder) {
  for (const auto& [path, mode] : {std::pair("/v/below", "host-to-task"),
                                   std::pair("/v", "private"), std::pair("/w", "bidirectional")}) {
    auto& volume = *task_.add_mounts();
    volume.set_task_path(path);
    volume.set_host_path(std::string("/srv") + path);
    volume.set_propagation_mode(mode);
  }
  AddBind("local/x", "/v/a");
  ASSERT_OK_AND_ASSIGN(const pb::SandboxSpec sandbox, Run());
  std::vector<std::string> order;
  for (const pb::MountSpec& mount : sandbox.mounts()) {
    if (mount.no_links()) order.push_back(mount.target());
  }
  EXPECT_THAT(order, ElementsAre("/v", "/v/a", "/v/below", "/w"));
  EXPECT_EQ(FindMount(sandbox, "/v")->propagation(), pb::MountSpec::PRIVATE);
  EXPECT_EQ(FindMount(sandbox, "/v/below")->propagation(), pb::MountSpec::SLAVE);
  EXPECT_EQ(FindMount(sandbox, "/w")->propagation(), pb::MountSpec::SHARED);

  AddBind("local/y", "/w/y");
  EXPECT_THAT(Run(),
              Refused("mount[1].target: \"/w/y\" lies in \"/w\", whose shared propagation would "
                      "show it on the host"));
  isolation().mounts.back().target = "/v";
  EXPECT_THAT(Run(), Refused("mount[1].target: \"/v\" is the target of two mounts"));
}

TEST_F(PlanIsolation, VolumesNeitherHideTheSandboxNorComeWithUnknownModes) {
  auto& volume = *task_.add_mounts();
  volume.set_host_path("/srv/x");
  volume.set_task_path("/run");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("volume_mount /run: destination: \"/run\" would change")));
  volume.set_task_path("/x");
  volume.set_propagation_mode("sideways");
  EXPECT_THAT(Run(), Refused("volume_mount /x: propagation_mode: \"sideways\" is not known "
                             "(allowed: private, host-to-task, bidirectional)"));
}

// ---- sizes and limits ----

TEST_F(PlanIsolation, SizesOfTheJob) {
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  EXPECT_EQ(FindMount(sandbox, "/tmp")->size_bytes(), uint64_t{200} << 20);
  EXPECT_EQ(FindMount(sandbox, "/dev/shm")->size_bytes(), uint64_t{64} << 20);
  isolation().tmp_size = 8192;
  isolation().shm_size = 16384;
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_EQ(FindMount(sandbox, "/tmp")->size_bytes(), 8192u);
  EXPECT_EQ(FindMount(sandbox, "/dev/shm")->size_bytes(), 16384u);
  isolation().shm_size = int64_t{9} << 30;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("shm_size: ")));
  isolation().tmp_size = int64_t{9} << 30;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tmp_size: ")));
}

TEST_F(PlanIsolation, LimitsUpToTheHosts) {
  isolation().ulimit = {{"nofile", "100:200"}, {"stack", "1048576:-1"}};
  ASSERT_OK_AND_ASSIGN(const pb::SandboxSpec sandbox, Run());
  ASSERT_EQ(sandbox.rlimits_size(), 3);
  EXPECT_EQ(sandbox.rlimits(0).soft(), 4096u);  // the host's, then the job's
  EXPECT_EQ(sandbox.rlimits(1).soft(), 100u);
  EXPECT_EQ(sandbox.rlimits(1).hard(), 200u);
  EXPECT_EQ(sandbox.rlimits(2).hard(), RLIM_INFINITY);
  isolation().ulimit = {{"nproc", "1001"}};
  EXPECT_THAT(Run(), Refused("ulimit.nproc: 1001 is above this host's maximum, 1000"));
  isolation().ulimit = {{"nofile", "-1"}};
  EXPECT_THAT(Run(), Refused("ulimit.nofile: no limit is above this host's maximum, 4096"));
}

TEST_F(PlanIsolation, TheStackLimitBoundsTheArguments) {
  options_.args = {std::string(100000, 'x'), std::string(100000, 'y')};
  EXPECT_OK(Run());
  isolation().ulimit = {{"stack", "131072:-1"}};
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("a quarter of the stack limit")));
}

// ---- network and names ----

TEST_F(PlanIsolation, NetworkOfTheJobOrOfItsGroup) {
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  EXPECT_FALSE(sandbox.own_network());
  isolation().network_mode = "none";
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_TRUE(sandbox.own_network());
  task_.mutable_network_isolation_spec()->set_path("/run/netns/1");
  for (const std::string mode : {"none", "host"}) {
    isolation().network_mode = mode;
    EXPECT_THAT(Run(), Refused("network_mode: \"" + mode +
                               "\", but the group's network block already gives the task a network "
                               "of its own; remove one of them"));
  }
  isolation().network_mode = "";
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_EQ(sandbox.network_namespace(), "/run/netns/1");
  EXPECT_FALSE(sandbox.own_network());
}

TEST_F(PlanIsolation, AnAgentNeedsANetwork) {
  options_.command = "";
  options_.has_agent = true;
  isolation().network_mode = "none";
  EXPECT_THAT(Run(), Refused("network_mode: \"none\" keeps an agent from its controller; remove "
                             "it, or name another program"));
}

TEST_F(PlanIsolation, HostNameAndHosts) {
  isolation().hostname = "builder.example";
  isolation().extra_hosts = {"db:10.0.0.7", "v6:fd00::7"};
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  EXPECT_EQ(sandbox.hostname(), "builder.example");
  EXPECT_EQ(FileContent(sandbox, "/etc/hostname"), "builder.example\n");
  EXPECT_THAT(FileContent(sandbox, "/etc/hosts"),
              HasSubstr("127.0.1.1 builder.example\n10.0.0.7\tdb\nfd00::7\tv6\n"));

  auto& hosts = *task_.mutable_network_isolation_spec()->mutable_hostsconfig();
  hosts.set_hostname("net-1");
  hosts.set_address("172.26.0.2");
  EXPECT_THAT(Run(), Refused("hostname: \"builder.example\", but the group's network has the host "
                             "name \"net-1\"; remove one of them"));
  isolation().hostname = "";
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_EQ(sandbox.hostname(), "net-1");
  EXPECT_EQ(FileContent(sandbox, "/etc/hosts"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost\n172.26.0.2\tnet-1\n10.0.0.7\tdb\nfd00::7\tv6\n");
}

TEST_F(PlanIsolation, WhatDnsLeavesOutComesFromTheHost) {
  task_.mutable_dns()->add_servers("10.0.0.1");
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  EXPECT_EQ(FileContent(sandbox, "/etc/resolv.conf"),
            "nameserver 10.0.0.1\nsearch host.example\noptions timeout:1\n");
  task_.clear_dns();
  task_.mutable_dns()->add_searches("job.example");
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_EQ(FileContent(sandbox, "/etc/resolv.conf"),
            "nameserver 9.9.9.9\nsearch job.example\noptions timeout:1\n");
}

// ---- privileges ----

TEST_F(PlanIsolation, NoCapabilitiesUnlessAskedForAndAllowed) {
  ASSERT_OK_AND_ASSIGN(pb::SandboxSpec sandbox, Run());
  EXPECT_THAT(sandbox.capabilities(), IsEmpty());
  EXPECT_EQ(sandbox.payload_filter(), PayloadFilter());
  EXPECT_EQ(sandbox.init_filter(), InitFilter());

  isolation().cap_add = {"net_raw", "net_admin"};
  policy_.allow_caps = {"NET_RAW"};
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kPermissionDenied,
                              "cap_add: net_admin is not in the plugin's option allow_caps = "
                              "[net_raw]; remove it from the job or let the operator add it"));
  policy_.allow_caps = {"all"};
  ASSERT_OK_AND_ASSIGN(sandbox, Run());
  EXPECT_THAT(sandbox.capabilities(), ElementsAre(CAP_NET_ADMIN, CAP_NET_RAW));
  EXPECT_EQ(sandbox.payload_filter(), PayloadFilter({CAP_NET_ADMIN, CAP_NET_RAW}));
  EXPECT_GT(sandbox.masked_paths_size(), 0);

  isolation().cap_add = {"sys_time"};
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                              "cap_add: the Nomad agent itself does not have sys_time, so it "
                              "cannot give it to a task"));
}

TEST_F(PlanIsolation, PrivilegedIsTheOperatorsDecision) {
  isolation().privileged = true;
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kPermissionDenied,
                              "privileged: the plugin's option allow_privileged = false forbids "
                              "it; remove it from the job or let the operator set "
                              "allow_privileged = true"));
  policy_.allow_privileged = true;
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, RunAll());
  const pb::SandboxSpec& sandbox = spec.sandbox();
  EXPECT_THAT(sandbox.capabilities(), ElementsAre(CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW));
  EXPECT_EQ(sandbox.payload_filter(), OpenFilter());
  EXPECT_EQ(sandbox.masked_paths_size(), 0);
  EXPECT_EQ(sandbox.read_only_paths_size(), 0);
  EXPECT_EQ(spec.root_template().masked_paths_size(), 0);
  const pb::MountSpec* sys = FindMount(spec.root_template(), "/sys");
  ASSERT_NE(sys, nullptr);
  EXPECT_FALSE(sys->read_only());
}

TEST_F(PlanIsolation, AUserNamespaceMapsEveryIdOfTheTask) {
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, RunAll());
  EXPECT_THAT(spec.user().id_map(), IsEmpty());
  isolation().userns = true;
  uid_ = 80001;
  ASSERT_OK_AND_ASSIGN(spec, RunAll());
  ASSERT_EQ(spec.user().id_map_size(), 2);
  // The last ids of the range; of each task another one, as far as there are enough.
  EXPECT_GE(spec.user().namespace_owner(), 0x6FFF8000u);
  EXPECT_LE(spec.user().namespace_owner(), 0x6FFFFFFFu);
  EXPECT_EQ(spec.user().id_map(0).inside(), 0u);
  EXPECT_EQ(spec.user().id_map(0).outside(), 0x6FFE0000u);
  EXPECT_EQ(spec.user().id_map(0).count(), 65536u);
  EXPECT_EQ(spec.user().id_map(1).inside(), 80001u);
  EXPECT_EQ(spec.user().id_map(1).outside(), 0x6FFF0000u);
  EXPECT_EQ(spec.user().id_map(1).count(), 1u);
  EXPECT_EQ(spec.user().uid(), 80001u);
  EXPECT_EQ(spec.sandbox().payload_filter(), PayloadFilter());
  EXPECT_EQ(spec.sandbox().init_filter(), InitFilter({}, true));
}

// ---- devices ----

TEST_F(PlanIsolation, ADeviceOfNomadIsTheTasksOwn) {
  auto& asked = *task_.add_devices();
  asked.set_host_path("/dev/zero");
  asked.set_task_path("/dev/gpu/0");
  asked.set_cgroup_permissions("rm");
  ASSERT_OK_AND_ASSIGN(const pb::SandboxSpec sandbox, Run());
  const pb::MountSpec* dev = FindMount(sandbox, "/dev");
  ASSERT_NE(dev, nullptr);
  ASSERT_EQ(dev->devices_size(), 1);
  const pb::DeviceSpec& device = dev->devices(0);
  EXPECT_EQ(device.path(), "gpu/0");
  EXPECT_FALSE(device.block());
  EXPECT_EQ(device.major_number(), 1u);
  EXPECT_EQ(device.minor_number(), 5u);
  EXPECT_EQ(device.mode(), 0400u);
  EXPECT_EQ(device.uid(), 1000u);
  EXPECT_EQ(device.gid(), 1001u);
  EXPECT_EQ(device.cgroup_permissions(), "rm");
}

TEST_F(PlanIsolation, WhoCouldGetPastItsDevHasDeviceRules) {
  host_.capabilities = {CAP_NET_RAW, CAP_MKNOD, CAP_SYS_ADMIN};
  policy_.allow_caps = {"all"};
  policy_.allow_privileged = true;
  for (const char* capability : {"mknod", "sys_admin"}) {
    isolation().cap_add = {capability};
    ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, RunAll());
    ASSERT_TRUE(spec.cgroup().has_device_control()) << capability;
    EXPECT_EQ(spec.cgroup().device_control().allowed_size(), 0);
  }
  isolation().privileged = true;
  isolation().cap_add.clear();
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, RunAll());
  EXPECT_FALSE(spec.cgroup().has_device_control());
  isolation().privileged = false;
  isolation().cap_add = {"net_raw"};
  ASSERT_OK_AND_ASSIGN(spec, RunAll());
  EXPECT_FALSE(spec.cgroup().has_device_control());
}

TEST_F(PlanIsolation, ADeviceOfNomadIsUsedAsAssigned) {
  for (const char* permissions : {"r", ""}) {
    auto& asked = *task_.add_devices();
    asked.set_host_path("/dev/zero");
    asked.set_task_path(absl::StrCat("/dev/gpu", task_.devices_size()));
    asked.set_cgroup_permissions(permissions);
  }
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, RunAll());
  ASSERT_EQ(spec.cgroup().device_control().allowed_size(), 1);
  const pb::DeviceRule& rule = spec.cgroup().device_control().allowed(0);
  EXPECT_EQ(rule.type(), pb::DeviceRule::CHARACTER);
  EXPECT_EQ(rule.major(), 1);
  EXPECT_EQ(rule.minor(), 5);
  EXPECT_EQ(rule.access(), "r");
}

TEST_F(PlanIsolation, DevicesThatCannotBe) {
  auto& asked = *task_.add_devices();
  asked.set_host_path("/dev/zero");
  asked.set_task_path("/gpu0");
  EXPECT_THAT(Run(), Refused("device /dev/zero: task path: \"/gpu0\" is not below /dev, the only "
                             "place in which the task can open a device"));
  for (const char* path : {"/dev/null", "/dev/pts/0", "/dev/shm"}) {
    asked.set_task_path(path);
    EXPECT_THAT(Run(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is the sandbox's own")));
  }
  asked.set_task_path("/dev/../gpu");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a plain path")));
  asked.set_task_path("/dev/gpu");
  asked.set_cgroup_permissions("rx");
  EXPECT_THAT(Run(), Refused("device /dev/zero: permissions: \"rx\" (allowed: of \"rwm\")"));
  asked.set_cgroup_permissions("rw");
  asked.set_host_path("/etc/passwd");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                              "device /etc/passwd: /etc/passwd is no device"));
  asked.set_host_path("/dev/no-such-device");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/no-such-device")));
}

}  // namespace
}  // namespace jenkins_agent
