#include "driver/config/isolation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include "driver/config/capabilities.h"
#include "driver/config/task_config.h"
#include "driver/config/ulimit.h"
#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

auto Refused(const std::string& message) {
  return StatusIs(absl::StatusCode::kInvalidArgument, message);
}

TEST(DecodeIsolationTest, LeftOutIsTheSecureDefault) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config, DecodeTaskConfig(""));
  EXPECT_THAT(config.isolation.mounts, IsEmpty());
  EXPECT_EQ(config.isolation.tmp_size, std::nullopt);
  EXPECT_EQ(config.isolation.shm_size, 64 << 20);
  EXPECT_THAT(config.isolation.ulimit, IsEmpty());
  EXPECT_EQ(config.isolation.hostname, "");
  EXPECT_THAT(config.isolation.extra_hosts, IsEmpty());
  EXPECT_EQ(config.isolation.network_mode, "");
  EXPECT_THAT(config.isolation.cap_add, IsEmpty());
  EXPECT_THAT(config.isolation.cap_drop, IsEmpty());
  EXPECT_FALSE(config.isolation.privileged);
  EXPECT_EQ(config.isolation.readonly_rootfs, std::nullopt);
  EXPECT_FALSE(config.isolation.userns);
}

TEST(DecodeIsolationTest, EveryOption) {
  const std::string bind = Map({{"bind_options", Map({{"propagation", Str("rslave")}})},
                                {"readonly", kTrue},
                                {"source", Str("local/cache")},
                                {"target", Str("/cache")},
                                {"tmpfs_options", kNil},
                                {"type", Str("bind")}});
  const std::string tmpfs = Map({{"source", kNil},
                                 {"target", Str("/scratch")},
                                 {"tmpfs_options", Map({{"mode", Num(448)}, {"size", Num(8192)}})},
                                 {"type", Str("tmpfs")}});
  ASSERT_OK_AND_ASSIGN(
      const TaskConfig config,
      DecodeTaskConfig(Map({{"cap_add", Strings({"all"})},
                            {"cap_drop", Strings({"sys_admin"})},
                            {"extra_hosts", Strings({"db:10.0.0.7"})},
                            {"hostname", Str("builder")},
                            {"mount", List({bind, tmpfs})},
                            {"network_mode", Str("none")},
                            {"readonly_rootfs", kTrue},
                            {"shm_size", Num(16384)},
                            {"tmp_size", Num(32768)},
                            {"ulimit", List({Map({{"nofile", Str("1024:2048")}})})},
                            {"userns", kTrue}})));
  const Isolation& isolation = config.isolation;
  ASSERT_EQ(isolation.mounts.size(), 2u);
  EXPECT_EQ(isolation.mounts[0].type, "bind");
  EXPECT_EQ(isolation.mounts[0].source, "local/cache");
  EXPECT_EQ(isolation.mounts[0].target, "/cache");
  EXPECT_EQ(isolation.mounts[0].propagation, "rslave");
  EXPECT_TRUE(isolation.mounts[0].readonly);
  EXPECT_EQ(isolation.mounts[1].type, "tmpfs");
  EXPECT_EQ(isolation.mounts[1].tmpfs_size, 8192);
  EXPECT_EQ(isolation.mounts[1].tmpfs_mode, 0700);
  EXPECT_FALSE(isolation.mounts[1].readonly);
  EXPECT_THAT(isolation.cap_add, ElementsAre("all"));
  EXPECT_THAT(isolation.cap_drop, ElementsAre("sys_admin"));
  EXPECT_THAT(isolation.extra_hosts, ElementsAre("db:10.0.0.7"));
  EXPECT_EQ(isolation.hostname, "builder");
  EXPECT_EQ(isolation.network_mode, "none");
  EXPECT_EQ(isolation.readonly_rootfs, true);
  EXPECT_EQ(isolation.shm_size, 16384);
  EXPECT_EQ(isolation.tmp_size, 32768);
  EXPECT_THAT(isolation.ulimit, ElementsAre(Pair("nofile", "1024:2048")));
  EXPECT_TRUE(isolation.userns);
}

TEST(DecodeIsolationTest, ErrorsNameTheElement) {
  const std::string good =
      Map({{"source", Str("local")}, {"target", Str("/a")}, {"type", Str("bind")}});
  const std::string bad = Map({{"target", Str("/b")}, {"type", Str("volume")}});
  EXPECT_THAT(DecodeTaskConfig(Map({{"mount", List({good, bad})}})),
              Refused("config: mount[1].type: \"volume\" is not offered (allowed: \"bind\", "
                      "\"tmpfs\"; for volumes use the job's volume and volume_mount blocks)"));
}

MountBlock Bind(const std::string& source, const std::string& target) {
  return {.type = "bind", .source = source, .target = target};
}
MountBlock Tmpfs(const std::string& target) { return {.type = "tmpfs", .target = target}; }

TEST(ValidateMountTest, Accepts) {
  EXPECT_OK(ValidateMount(Bind("local/a", "/a/b")));
  EXPECT_OK(ValidateMount(Bind("/srv/cache", "/cache")));
  EXPECT_OK(ValidateMount(Tmpfs("/run/lock")));
  EXPECT_OK(ValidateMount(Tmpfs("/device")));
}

TEST(ValidateMountTest, RefusesWhatTheTypeDoesNotHave) {
  EXPECT_THAT(ValidateMount({.target = "/a"}),
              Refused("type: is not set (allowed: \"bind\", \"tmpfs\")"));
  EXPECT_THAT(ValidateMount(Bind("", "/a")),
              Refused("source: is not set; a bind mount needs a file or directory"));
  MountBlock mount = Bind("local", "/a");
  mount.has_tmpfs_options = true;
  EXPECT_THAT(ValidateMount(mount), Refused("tmpfs_options: belongs to type = \"tmpfs\""));
  mount = Tmpfs("/a");
  mount.source = "local";
  EXPECT_THAT(ValidateMount(mount), Refused("source: a tmpfs has none; remove it"));
  mount = Tmpfs("/a");
  mount.has_bind_options = true;
  EXPECT_THAT(ValidateMount(mount), Refused("bind_options: belongs to type = \"bind\""));
}

TEST(ValidateMountTest, RefusesValues) {
  MountBlock mount = Bind("local", "/a");
  mount.propagation = "both";
  EXPECT_THAT(ValidateMount(mount),
              Refused("bind_options.propagation: \"both\" is not known (allowed: private, "
                      "rprivate, slave, rslave, shared, rshared)"));
  mount = Tmpfs("/a");
  mount.tmpfs_size = 4095;
  EXPECT_THAT(ValidateMount(mount), Refused("tmpfs_options.size: 4095 bytes are too small "
                                            "(allowed: 4096 and more)"));
  mount = Tmpfs("/a");
  mount.tmpfs_mode = 4096;
  EXPECT_THAT(ValidateMount(mount),
              Refused("tmpfs_options.mode: 4096 is out of range (allowed: 1 to 4095, in decimal: "
                      "1023 is 01777)"));
}

TEST(ValidateMountTest, SourcesArePlainPaths) {
  for (const std::string source :
       {"../x", "local/../../x", "local//x", "local/", "./local", "//", "/srv/../etc", "/srv/"}) {
    EXPECT_THAT(ValidateMount(Bind(source, "/a")),
                Refused("source: \"" + source +
                        "\" is not a plain path: no '//', '.', '..' or '/' at the end"));
  }
}

TEST(CheckMountTargetTest, WhatTheSandboxNeedsCannotBeHidden) {
  for (const std::string target : {"/proc", "/proc/sys", "/sys/fs/cgroup", "/dev", "/dev/shm",
                                   "/run", "/run/jenkins-agent", "/run/jenkins-agent/jar"}) {
    EXPECT_THAT(CheckMountTarget(target),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("what the sandbox needs")))
        << target;
  }
  EXPECT_THAT(CheckMountTarget("/"), Refused("\"/\" is the sandbox itself; name a directory below "
                                             "it"));
  for (const std::string target : {"", "a", "/a/../b", "/a/", "//a", "/a/./b"}) {
    EXPECT_FALSE(CheckMountTarget(target).ok()) << target;
  }
}

TEST(ValidateIsolationTest, TwoMountsNeedTwoTargets) {
  EXPECT_THAT(ValidateIsolation({.mounts = {Tmpfs("/a"), Bind("local", "/a")}}),
              Refused("mount[1].target: \"/a\" is the target of two mounts"));
}

TEST(ValidateIsolationTest, Values) {
  EXPECT_THAT(ValidateIsolation({.tmp_size = 0}),
              Refused("tmp_size: 0 bytes are too small (allowed: 4096 and more)"));
  EXPECT_THAT(ValidateIsolation({.shm_size = 1}),
              Refused("shm_size: 1 bytes are too small (allowed: 4096 and more)"));
  EXPECT_THAT(ValidateIsolation({.hostname = "a_b"}),
              Refused("hostname: \"a_b\" is no name for a host (allowed: letters, digits and '-', "
                      "with single dots between, no '-' at an end)"));
  EXPECT_OK(ValidateIsolation({.hostname = "build-1.example"}));
  EXPECT_THAT(ValidateIsolation({.network_mode = "bridge"}),
              Refused("network_mode: \"bridge\" is not known (allowed: \"host\", \"none\"; for "
                      "bridge and cni use the group's network block)"));
  EXPECT_THAT(ValidateIsolation({.rootfs_size = 8192}),
              Refused("rootfs_size: is of an image's root, and there is no image"));
  EXPECT_OK(ValidateIsolation({.rootfs_size = 8192}, /*on_image=*/true));
  EXPECT_THAT(ValidateIsolation({.rootfs_size = 1}, /*on_image=*/true),
              Refused("rootfs_size: 1 bytes are too small (allowed: 4096 and more)"));
  EXPECT_THAT(ValidateIsolation({.readonly_rootfs = true, .rootfs_size = 8192}, /*on_image=*/true),
              Refused("rootfs_size: nothing is written with readonly_rootfs; remove one of them"));
  EXPECT_THAT(ValidateIsolation({.readonly_rootfs = false}),
              Refused("readonly_rootfs: false is not possible with the host's programs, which all "
                      "tasks share; write to /tmp, /local, /alloc or a mount"));
}

TEST(ValidateIsolationTest, ExtraHosts) {
  ASSERT_OK_AND_ASSIGN(const ExtraHost v6, ParseExtraHost("db:fd00::7"));
  EXPECT_EQ(v6.name, "db");
  EXPECT_EQ(v6.address, "fd00::7");
  EXPECT_THAT(ValidateIsolation({.extra_hosts = {"db:1.2.3.4", "db"}}),
              Refused("extra_hosts: element 1: \"db\" is not NAME:ADDRESS"));
  EXPECT_THAT(ValidateIsolation({.extra_hosts = {"db:host-gateway"}}),
              Refused("extra_hosts: element 0: \"host-gateway\" is not an IPv4 or IPv6 address"));
  EXPECT_FALSE(ValidateIsolation({.extra_hosts = {"a b:1.2.3.4"}}).ok());
  EXPECT_FALSE(ValidateIsolation({.extra_hosts = {"a:1.2.3.4\nb:1.1.1.1"}}).ok());
}

TEST(ParseUlimitsTest, SoftAndHard) {
  ASSERT_OK_AND_ASSIGN(const std::vector<Ulimit> limits,
                       ParseUlimits({{"nofile", "1024:4096"}, {"nproc", "7"}, {"stack", "8:-1"}}));
  ASSERT_EQ(limits.size(), 3u);
  EXPECT_EQ(limits[0].resource, RLIMIT_NOFILE);
  EXPECT_EQ(limits[0].soft, 1024u);
  EXPECT_EQ(limits[0].hard, 4096u);
  EXPECT_EQ(limits[1].resource, RLIMIT_NPROC);
  EXPECT_EQ(limits[1].soft, 7u);
  EXPECT_EQ(limits[1].hard, 7u);
  EXPECT_EQ(limits[2].hard, RLIM_INFINITY);
}

TEST(ParseUlimitsTest, Refuses) {
  EXPECT_THAT(ValidateIsolation({.ulimit = {{"core", "1"}}}),
              Refused("ulimit: core: core dumps are always off; remove it"));
  EXPECT_THAT(ParseUlimits({{"files", "1"}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("files: is not known (allowed: cpu, data, fsize, ")));
  EXPECT_THAT(ParseUlimits({{"nofile", "9:8"}}),
              Refused("nofile: \"9:8\": the soft limit is above the hard one; write SOFT:HARD"));
  for (const std::string value : {"", "x", "1:", ":1", "1:2:3", "-2", "99999999999999999999"}) {
    EXPECT_FALSE(ParseUlimits({{"nofile", value}}).ok()) << value;
  }
}

TEST(CapabilitiesTest, NamesOfDocker) {
  ASSERT_OK_AND_ASSIGN(const CapabilitySet set,
                       ParseCapabilities({"net_admin", "SYS_TIME", "CAP_KILL"}));
  EXPECT_THAT(set, ElementsAre(CAP_KILL, CAP_NET_ADMIN, CAP_SYS_TIME));
  EXPECT_EQ(CapabilityName(CAP_NET_ADMIN), "net_admin");
  for (const std::string name : {"", "12", "cap_", "fly", "cap_12", "net_admin,kill"}) {
    EXPECT_FALSE(ParseCapabilities({name}).ok()) << name;
  }
}

TEST(CapabilitiesTest, AllGivesWayToNames) {
  ASSERT_OK_AND_ASSIGN(CapabilitySet wanted, WantedCapabilities({"all"}, {"sys_admin"}));
  EXPECT_EQ(wanted.size(), static_cast<size_t>(CAP_LAST_CAP));
  EXPECT_FALSE(wanted.contains(CAP_SYS_ADMIN));
  ASSERT_OK_AND_ASSIGN(wanted, WantedCapabilities({"kill"}, {"ALL"}));
  EXPECT_THAT(wanted, ElementsAre(CAP_KILL));
  ASSERT_OK_AND_ASSIGN(wanted, WantedCapabilities({}, {"net_raw"}));
  EXPECT_THAT(wanted, IsEmpty());
  EXPECT_THAT(WantedCapabilities({"kill"}, {"cap_kill"}),
              Refused("cap_add and cap_drop both name kill; remove it from one of them"));
}

TEST(ValidateIsolationTest, PrivilegedStandsAlone) {
  EXPECT_OK(ValidateIsolation({.privileged = true}));
  EXPECT_THAT(ValidateIsolation({.cap_add = {"kill"}, .privileged = true}),
              Refused("privileged: already gives every capability; remove it, or cap_add and "
                      "cap_drop"));
  EXPECT_THAT(ValidateIsolation({.privileged = true, .userns = true}),
              Refused("privileged and userns are both set; a user namespace takes away what "
                      "privileged gives"));
}

}  // namespace
}  // namespace jenkins_agent
