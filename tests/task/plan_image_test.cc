// Plans of tasks that run on an image.
#include <algorithm>

#include "driver/task/plan.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

class PlanImage : public ::testing::Test {
 protected:
  PlanImage() {
    task_.set_id("alloc-1/agent/abc");
    task_.set_alloc_id("alloc-1");
    task_.set_name("agent");
    task_.set_alloc_dir("/data/alloc-1");
    task_.mutable_resources()->mutable_allocated_resources()->mutable_memory()->set_memory_mb(512);
    image_.name = options_.image.image = "r.example/agent:1";
    image_.layers = {"/images/layers/b", "/images/layers/a"};
    image_.config.env = {"PATH=/image/bin", "LANG=C.UTF-8", "FOO=image"};
    image_.config.entrypoint = {"/entry", "-x"};
    image_.config.command = {"serve"};
    image_.config.work_dir = "/srv";
    image_.passwd = "jenkins:x:1000:1000::/home/jenkins:/bin/sh\n";
    javas_ = {{"/usr/lib/jvm/java-25", 25, "25", ""}};
  }

  absl::StatusOr<pb::LaunchSpec> Run() {
    PlanInput input{.options = options_, .task = task_, .filters = filters_};
    input.image = &image_;
    input.user.set_uid(1000);
    input.user.set_gid(1000);
    input.user.set_name("jenkins");
    input.user.set_home("/home/jenkins");
    input.task_dir = "/state/tasks/0";
    input.javas = javas_;
    return PlanTask(input);
  }
  pb::LaunchSpec Plan() {
    absl::StatusOr<pb::LaunchSpec> spec = Run();
    EXPECT_OK(spec);
    return spec.value_or(pb::LaunchSpec());
  }
  void UseAgent() {
    options_.has_agent = true;
    options_.agent.url = "https://jenkins.example/";
    options_.agent.name = "linux-1";
    (*task_.mutable_env())["JENKINS_SECRET"] = "0123secret";
  }

  TaskConfig options_;
  TaskFilters filters_;
  NomadTask task_;
  TaskImage image_;
  std::vector<JavaInstall> javas_;
};

std::vector<std::string> EnvOf(const pb::LaunchSpec& spec) {
  return {spec.program().env().begin(), spec.program().env().end()};
}
std::vector<std::string> TargetsOf(const pb::LaunchSpec& spec) {
  std::vector<std::string> targets;
  for (const pb::MountSpec& mount : spec.sandbox().mounts()) targets.push_back(mount.target());
  return targets;
}

TEST_F(PlanImage, TheRootIsTheLayersBelowWhatIsTheTasks) {
  const pb::ImageRoot root = Plan().sandbox().image();
  EXPECT_THAT(root.layers(),
              ElementsAre("/state/tasks/0/rootfs/base", "/images/layers/b", "/images/layers/a"));
  EXPECT_EQ(root.writable_dir(), "/state/tasks/0/rootfs");
  EXPECT_EQ(root.writable_bytes(), 0u);
  options_.isolation.rootfs_size = 65536;
  EXPECT_EQ(Plan().sandbox().image().writable_bytes(), 65536u);
  options_.isolation.rootfs_size.reset();
  options_.isolation.readonly_rootfs = true;
  EXPECT_EQ(Plan().sandbox().image().writable_dir(), "");
}

TEST_F(PlanImage, NothingOfTheHostIsInIt) {
  const pb::LaunchSpec spec = Plan();
  const std::vector<std::string> targets = TargetsOf(spec);
  for (const char* target : {"/usr", "/bin", "/lib", "/etc/ld.so.cache", "/etc/nsswitch.conf",
                             "/var/run", "/home/jenkins"}) {
    EXPECT_THAT(targets, Not(Contains(target)));
  }
  for (const char* target : {"/etc/passwd", "/etc/hosts", "/tmp", "/proc", "/dev", "/sys", "/alloc",
                             "/local", "/secrets", "/run", "/sys/fs/cgroup"}) {
    EXPECT_THAT(targets, Contains(target));
  }
  // The same for all tasks on images.
  ASSERT_EQ(spec.root_template().mounts_size(), 1);
  EXPECT_EQ(spec.root_template().mounts(0).target(), "/image");
}

TEST_F(PlanImage, ItsProgramRunsWhenTheJobNamesNone) {
  EXPECT_THAT(Plan().program().argv(), ElementsAre("/entry", "-x", "serve"));
  EXPECT_EQ(Plan().program().work_dir(), "/srv");
  options_.args = {"other"};
  EXPECT_THAT(Plan().program().argv(), ElementsAre("/entry", "-x", "other"));
  options_.command = "/bin/tool";
  EXPECT_THAT(Plan().program().argv(), ElementsAre("/bin/tool", "other"));
  options_.work_dir = "/w";
  EXPECT_EQ(Plan().program().work_dir(), "/w");
}

TEST_F(PlanImage, AnImageWithoutAProgramSaysSo) {
  image_.config.entrypoint.clear();
  image_.config.command.clear();
  EXPECT_THAT(Run().status().message(),
              HasSubstr("config: no program: image r.example/agent:1 names none"));
}

TEST_F(PlanImage, TheJobsEnvironmentWins) {
  (*task_.mutable_env())["FOO"] = "job";
  const std::vector<std::string> env = EnvOf(Plan());
  EXPECT_THAT(env, Contains("FOO=job"));
  EXPECT_THAT(env, Contains("PATH=/image/bin"));
  EXPECT_THAT(env, Contains("LANG=C.UTF-8"));
  EXPECT_THAT(env, Contains("HOME=/home/jenkins"));
}

TEST_F(PlanImage, AnAgentRunsOnTheImagesJava) {
  UseAgent();
  image_.javas = {{"/opt/java/openjdk", 17, "17.0.1", ""}, {"/usr/lib/jvm/java-11", 11, "11", ""}};
  const pb::LaunchSpec spec = Plan();
  ASSERT_EQ(spec.agent().java_homes_size(), 2);
  EXPECT_EQ(spec.agent().java_homes(0).path(), "/opt/java/openjdk");
  EXPECT_THAT(spec.agent().jvm_options(), Contains("-Xmx128m"));  // a quarter of its memory
  EXPECT_THAT(TargetsOf(spec), Not(Contains("/opt/java/openjdk")));
  EXPECT_EQ(spec.program().work_dir(), "/local/agent");
  options_.java_version = "11";
  EXPECT_EQ(Plan().agent().java_homes(0).path(), "/usr/lib/jvm/java-11");
}

TEST_F(PlanImage, WithoutOneTheNodesIsBound) {
  UseAgent();
  const pb::LaunchSpec spec = Plan();
  ASSERT_EQ(spec.agent().java_homes_size(), 1);
  EXPECT_EQ(spec.agent().java_homes(0).path(), "/usr/lib/jvm/java-25");
  const auto& mounts = spec.sandbox().mounts();
  const auto java = std::find_if(mounts.begin(), mounts.end(), [](const pb::MountSpec& mount) {
    return mount.target() == "/usr/lib/jvm/java-25";
  });
  ASSERT_NE(java, mounts.end());
  EXPECT_EQ(java->source(), "/usr/lib/jvm/java-25");
  EXPECT_TRUE(java->read_only());
  image_.javas = {{"/opt/java/openjdk", 17, "17.0.1", ""}};
  options_.java_version = "25";
  EXPECT_EQ(Plan().agent().java_homes(0).path(), "/usr/lib/jvm/java-25");
}

TEST_F(PlanImage, WithoutAnyJavaItSaysWhereItLooked) {
  UseAgent();
  javas_.clear();
  EXPECT_THAT(Run().status().message(),
              HasSubstr("no JDK found on this node nor in image r.example/agent:1; install one"));
  image_.javas = {{"/opt/java/openjdk", 17, "17.0.1", ""}};
  EXPECT_OK(Run());
  options_.java_version = "21";
  EXPECT_THAT(Run().status().message(),
              HasSubstr("java_version: no Java 21 on this node nor in image r.example/agent:1; "
                        "there is 17"));
}

TEST_F(PlanImage, ThePasswdFileHasTheUser) {
  image_.passwd = "";
  const pb::LaunchSpec spec = Plan();
  const auto& mounts = spec.sandbox().mounts();
  const auto passwd = std::find_if(mounts.begin(), mounts.end(), [](const pb::MountSpec& mount) {
    return mount.target() == "/etc/passwd";
  });
  ASSERT_NE(passwd, mounts.end());
  EXPECT_EQ(passwd->content(), "jenkins:x:1000:1000::/home/jenkins:/bin/sh\n");
}

}  // namespace
}  // namespace jenkins_agent
