#include "driver/task/plan.h"

#include <algorithm>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

class Plan : public ::testing::Test {
 protected:
  Plan() {
    task_.set_id("alloc-1/agent/abc");
    task_.set_alloc_id("alloc-1");
    task_.set_name("agent");
    task_.set_alloc_dir("/data/alloc-1");
    task_.set_stdout_path("/data/alloc-1/alloc/logs/.agent.stdout.fifo");
    (*task_.mutable_env())["NOMAD_ALLOC_NAME"] = "jenkins-slave.group[0]";
    auto& resources = *task_.mutable_resources();
    resources.mutable_allocated_resources()->mutable_memory()->set_memory_mb(512);
    resources.mutable_linux_resources()->set_cpu_shares(1000);
    javas_ = {{"/usr/lib/jvm/java-25", 25, "25", ""}, {"/opt/jdk-17", 17, "17.0.1", ""}};
  }

  void UseAgent() {
    options_.has_agent = true;
    options_.agent.url = "https://jenkins.example/";
    options_.agent.name = "linux-1";
    (*task_.mutable_env())["JENKINS_SECRET"] = "0123secret";
  }

  absl::StatusOr<pb::LaunchSpec> Run() {
    PlanInput input{.options = options_, .task = task_, .filters = filters_};
    input.own_log_files = own_log_files_;
    input.logs.max_files = 3;
    input.logs.max_file_size = 7;
    input.host_cores = host_cores_;
    input.user.set_uid(65534);
    input.user.set_gid(65534);
    input.user.set_name("nobody");
    input.user.set_home("/nonexistent");
    input.task_dir = "/state/tasks/0";
    input.javas = javas_;
    input.read_secret_file = [](const std::string& path) -> absl::StatusOr<std::string> {
      if (path == "/secrets/token") return "from-file\n";
      return absl::NotFoundError("open " + path);
    };
    return PlanTask(input);
  }

  TaskConfig options_;
  TaskFilters filters_;
  bool own_log_files_ = false;
  int64_t host_cores_ = 2;
  NomadTask task_;
  std::vector<JavaInstall> javas_;
};

std::vector<std::string> EnvOf(const pb::LaunchSpec& spec) {
  return {spec.program().env().begin(), spec.program().env().end()};
}

TEST_F(Plan, CommandRunsInTheTasksOwnDirectoryWithTheTasksEnvironment) {
  options_.command = "/bin/sleep";
  options_.args = {"60"};
  (*task_.mutable_env())["FOO"] = "bar";
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, Run());
  EXPECT_THAT(spec.program().argv(), ElementsAre("/bin/sleep", "60"));
  EXPECT_EQ(spec.program().work_dir(), "/local");
  EXPECT_THAT(EnvOf(spec), Contains("FOO=bar"));
  EXPECT_THAT(EnvOf(spec), Contains("USER=nobody"));
  EXPECT_THAT(EnvOf(spec), Contains(StartsWith("PATH=/usr/local/sbin:")));
  EXPECT_FALSE(spec.has_agent());
}

TEST_F(Plan, OutputGoesToNomadsFifosOrToFilesThatNomadFinds) {
  options_.command = "/bin/true";
  task_.set_stdout_path("/fifo/out");
  task_.set_stderr_path("/fifo/err");
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.output().stdout_path(), "/fifo/out");
  EXPECT_EQ(spec.output().stderr_path(), "/fifo/err");
  EXPECT_FALSE(spec.output().has_files());

  own_log_files_ = true;
  ASSERT_OK_AND_ASSIGN(spec, Run());
  ASSERT_TRUE(spec.output().has_files());
  const pb::LogFiles& files = spec.output().files();
  EXPECT_EQ(files.root(), task_.alloc_dir());
  EXPECT_EQ(files.directory(), "alloc/logs");
  EXPECT_EQ(files.stdout_name(), "agent.stdout");
  EXPECT_EQ(files.stderr_name(), "agent.stderr");
  EXPECT_EQ(files.max_files(), 3u);
  EXPECT_EQ(files.max_file_bytes(), uint64_t{7} << 20);

  task_.set_stdout_path("/dev/null");  // the job's logs { disabled = true }
  task_.set_stderr_path("/dev/null");
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_FALSE(spec.output().has_files());
}

TEST_F(Plan, LimitsAreNomads) {
  options_.command = "/bin/true";
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.cgroup().name(), "alloc-1.agent");
  EXPECT_EQ(spec.cgroup().memory_bytes(), int64_t{512} << 20);
  EXPECT_EQ(spec.cgroup().memory_soft_bytes(), 0);
  EXPECT_EQ(spec.cgroup().cpu_shares(), 1000);
  EXPECT_EQ(spec.cgroup().pids(), 2048);

  auto& memory = *task_.mutable_resources()->mutable_allocated_resources()->mutable_memory();
  memory.set_memory_max_mb(1024);
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.cgroup().memory_bytes(), int64_t{1024} << 20);
  EXPECT_EQ(spec.cgroup().memory_soft_bytes(), int64_t{512} << 20);
  memory.set_memory_max_mb(-1);
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.cgroup().memory_bytes(), 0);
}

TEST_F(Plan, AHardCpuLimitIsTheTasksPartOfTheNode) {
  options_.command = "/bin/true";
  auto& linux_resources = *task_.mutable_resources()->mutable_linux_resources();
  linux_resources.set_percentticks(0.125);
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.cgroup().cpu_quota_us(), 0);
  options_.cpu_hard_limit = true;
  host_cores_ = 8;
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.cgroup().cpu_quota_us(), 100'000);  // one of eight cores
  linux_resources.set_percentticks(0.0001);
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.cgroup().cpu_quota_us(), 1000);  // the least that the kernel takes
  linux_resources.set_percentticks(0);
  EXPECT_THAT(Run(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cpu_hard_limit: Nomad")));
}

TEST_F(Plan, SharesOfAHugeNodeAreScaledToTheKernels) {
  options_.command = "/bin/true";
  auto& linux_resources = *task_.mutable_resources()->mutable_linux_resources();
  linux_resources.set_cpu_shares(300'000);
  linux_resources.set_percentticks(0.5);  // of 600 000 MHz
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.cgroup().cpu_shares(), 131'072);
  linux_resources.set_cpu_shares(1000);
  linux_resources.set_percentticks(0.25);
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.cgroup().cpu_shares(), 1000);
}

TEST_F(Plan, AnIoWeightIsPassedOn) {
  options_.command = "/bin/true";
  options_.io_weight = 700;
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.cgroup().io_weight(), 700u);
}

TEST_F(Plan, TheSecretIsInTheAgentsPartOnly) {
  UseAgent();
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.agent().secret(), "0123secret");
  EXPECT_EQ(spec.agent().root_dir(), "/local/agent");
  EXPECT_THAT(EnvOf(spec), Not(Contains(HasSubstr("0123secret"))));
  EXPECT_THAT(spec.agent().jvm_options(), Contains("-XX:-UsePerfData"));
  spec.clear_agent();
  EXPECT_THAT(spec.SerializeAsString(), Not(HasSubstr("0123secret")));
}

TEST_F(Plan, TheEnvironmentAloneMakesAnAgent) {
  auto& env = *task_.mutable_env();
  env["JENKINS_URL"] = "http://controller:8080/";
  env["JENKINS_AGENT_NAME"] = "env-agent";
  env["JENKINS_SECRET"] = "@/secrets/token";
  env["JENKINS_AGENT_WORKDIR"] = "/local/elsewhere";
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, Run());
  EXPECT_THAT(spec.agent().urls(), ElementsAre("http://controller:8080/"));
  EXPECT_EQ(spec.agent().name(), "env-agent");
  EXPECT_EQ(spec.agent().secret(), "from-file");
  EXPECT_EQ(spec.agent().root_dir(), "/local/elsewhere");
}

// Where a value comes from makes no difference: what the launcher would refuse is refused before.
TEST_F(Plan, TheAgentIsCheckedWithWhatTheEnvironmentAdds) {
  UseAgent();
  const std::pair<std::pair<const char*, const char*>, const char*> cases[] = {
      {{"JENKINS_AGENT_WORKDIR", "relative"}, "agent.root_dir: \"relative\""},
      {{"JENKINS_AGENT_WORKDIR", "/local/../etc"}, "agent.root_dir: \"/local/../etc\""},
      {{"JENKINS_TUNNEL", "h"}, "agent.tunnel: \"h\""},
      {{"JENKINS_INSTANCE_IDENTITY", "MIIB"}, "agent.instance_identity is only used with"},
      {{"REMOTING_OPTS", "-webSocket -tunnel h:1"}, "agent.web_socket and agent.tunnel"},
      {{"REMOTING_OPTS", "-jnlpUrl http://c/"}, "agent.extra_args: contains -jnlpUrl"},
  };
  for (const auto& [variable, message] : cases) {
    auto& env = *task_.mutable_env();
    env[variable.first] = variable.second;
    EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
    env.erase(variable.first);
  }
  options_.agent.tunnel = "h";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("agent.tunnel: ")));
  options_.agent.tunnel = "h:1";
  EXPECT_OK(Run());
  options_.agent.web_socket_headers = {{"A", "b"}};
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("agent.web_socket_headers need")));
}

TEST_F(Plan, ClassDataIsSharedUnlessTheJobSaysOtherwise) {
  const std::string option = "-XX:VMOptionsFile=/run/jenkins-agent/jar/vm.options";
  UseAgent();
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, Run());
  EXPECT_THAT(spec.agent().jvm_options(), Contains(option));
  options_.jvm_options = {"-XX:+UseZGC"};
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec hindered, Run());
  EXPECT_THAT(hindered.agent().jvm_options(), Not(Contains(option)));
  options_.jvm_options = {};
  options_.class_data_sharing = false;
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec off, Run());
  EXPECT_THAT(off.agent().jvm_options(), Not(Contains(option)));
}

TEST_F(Plan, WhatIsMissingIsNamed) {
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("JENKINS_URL")));
  UseAgent();
  options_.agent.url.clear();
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("agent.url")));
  options_.agent.url = "https://jenkins.example/";
  task_.mutable_env()->erase("JENKINS_SECRET");
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("secret")));
  options_.agent.secret_file = "/secrets/none";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("agent.secret_file: open")));
}

TEST_F(Plan, JavaOfTheJobsChoice) {
  UseAgent();
  options_.java_version = "17";
  ASSERT_OK_AND_ASSIGN(const pb::LaunchSpec spec, Run());
  ASSERT_EQ(spec.agent().java_homes_size(), 1);
  EXPECT_EQ(spec.agent().java_homes(0).path(), "/opt/jdk-17");
  const auto& mounts = spec.root_template().mounts();
  EXPECT_TRUE(std::any_of(mounts.begin(), mounts.end(), [](const pb::MountSpec& mount) {
    return mount.target() == "/opt/jdk-17" && mount.read_only();
  }));
  options_.java_version = "11";
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                              HasSubstr("no Java 11 on this node; there is 25, 17")));
  javas_.clear();
  EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no JDK found")));
}

TEST_F(Plan, TheJavaDriversNames) {
  options_.jar_path = "local/tool.jar";
  options_.jvm_options = {"-Xmx64m"};
  options_.args = {"a b"};
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_THAT(spec.program().argv(),
              ElementsAre("/usr/lib/jvm/java-25/bin/java", "@/run/jenkins-agent/args"));
  EXPECT_EQ(spec.program().arguments_file(),
            "\"-Xmx64m\"\n\"-jar\"\n\"/local/tool.jar\"\n\"a b\"\n");
}

TEST_F(Plan, ALauncherOfTheJobsOwnIsAnAgent) {
  options_.class_name = "hudson.remoting.jnlp.Main";
  options_.class_path = "/local/remoting.jar";
  options_.args = {"-headless", "-url", "http://c/", "5ec2e7", "linux-1"};
  options_.health.restart.attempts = 3;
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_TRUE(spec.agent().own_command());
  EXPECT_EQ(spec.agent().jar(), "");  // nothing is left to find out
  EXPECT_EQ(spec.agent().name(), "linux-1");
  EXPECT_EQ(spec.agent().health().restart().attempts(), 3u);
  EXPECT_THAT(spec.program().arguments_file(), HasSubstr("\"hudson.remoting.jnlp.Main\"\n"));

  options_.class_name = "com.example.Main";
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_FALSE(spec.has_agent());

  options_.class_name.clear();
  options_.jar_path = "local/tool.jar";
  options_.args = {};
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.agent().jar(), "/local/tool.jar");  // to be looked at
  EXPECT_EQ(spec.agent().name(), "agent");

  options_.health.enabled = false;
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_FALSE(spec.has_agent());
}

TEST_F(Plan, HostNameIsFitForEveryProgram) {
  options_.command = "/bin/true";
  ASSERT_OK_AND_ASSIGN(pb::LaunchSpec spec, Run());
  EXPECT_EQ(spec.sandbox().hostname(), "jenkins-slave-group-0");
  (*task_.mutable_env())["NOMAD_ALLOC_NAME"] = "[[]]";
  ASSERT_OK_AND_ASSIGN(spec, Run());
  EXPECT_EQ(spec.sandbox().hostname(), "agent");
}

TEST_F(Plan, DnsOfTheJobBecomesResolvConf) {
  task_.mutable_dns()->add_servers("10.0.0.1");
  task_.mutable_dns()->add_searches("example");
  task_.mutable_dns()->add_options("ndots:2");
  EXPECT_EQ(ResolvConf(task_, ""), "nameserver 10.0.0.1\nsearch example\noptions ndots:2\n");
}

}  // namespace
}  // namespace jenkins_agent
