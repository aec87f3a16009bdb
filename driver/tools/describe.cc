#include "driver/tools/describe.h"

#include <functional>
#include <iostream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent {
namespace {

// The section's fixed part. What a command does and takes comes from its definition.
constexpr absl::string_view kEnvironment =
    R"(.SH ENVIRONMENT
.TP
.B NOMAD_ADDR\fR, \fBNOMAD_TOKEN\fR, \fBNOMAD_NAMESPACE\fR, \fBNOMAD_REGION\fR, \fBNOMAD_CACERT\fR, ...
For \fBexplain\fR: as for the command
.BR nomad .
)";
constexpr absl::string_view kFiles =
    R"(.SH FILES
.TP
.I /opt/nomad/plugins/nomad-driver-jenkins-agent
The driver, to be found by Nomad's
.IR plugin_dir .
.TP
.I /var/lib/nomad-driver-jenkins-agent
State of the tasks, fetched agent.jars, images.
.TP
.I /usr/share/doc/nomad-driver-jenkins-agent
Options of jobs and of the plugin, examples.
)";

std::vector<const CLI::App*> Commands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App* command) { return !command->get_group().empty(); });
}

std::vector<const CLI::Option*> Options(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return !option->get_group().empty(); });
}

// "--json", "-h"; none for a positional.
std::vector<std::string> Names(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(absl::StrCat("-", name));
  for (const std::string& name : option.get_lnames()) names.push_back(absl::StrCat("--", name));
  return names;
}

// `visit` with each command, its parents' names and its own, such as "images pull".
void ForEachCommand(const CLI::App& app, const std::string& path,
                    const std::function<void(const CLI::App&, const std::string&)>& visit) {
  visit(app, path);
  for (const CLI::App* command : Commands(app)) {
    ForEachCommand(
        *command, path.empty() ? command->get_name() : absl::StrCat(path, " ", command->get_name()),
        visit);
  }
}

std::string Words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* command : Commands(app)) words.push_back(command->get_name());
  for (const CLI::Option* option : Options(app)) {
    for (const std::string& name : Names(*option)) words.push_back(name);
  }
  return absl::StrJoin(words, " ");
}

// Text that roff takes as it is: no escapes, no line that begins as a request does.
std::string Roff(absl::string_view text) {
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::string safe = absl::StrReplaceAll(line, {{"\\", "\\e"}, {"-", "\\-"}});
    lines.push_back(!safe.empty() && (safe[0] == '.' || safe[0] == '\'') ? absl::StrCat("\\&", safe)
                                                                         : safe);
  }
  return absl::StrJoin(lines, "\n.br\n");
}

std::string RoffOption(const CLI::Option& option) {
  const std::vector<std::string> names = Names(option);
  std::string tag = names.empty() ? absl::StrCat("\\fI", Roff(option.get_name(true)), "\\fR")
                                  : absl::StrCat("\\fB", Roff(absl::StrJoin(names, ", ")), "\\fR");
  if (!names.empty() && option.get_items_expected_max() > 0) {
    absl::StrAppend(&tag, " \\fI", Roff(option.get_type_name()), "\\fR");
  }
  return absl::StrCat(".TP\n", tag, "\n", Roff(option.get_description()), "\n");
}

}  // namespace

std::string BashCompletion(const CLI::App& app) {
  std::string commands, words;
  ForEachCommand(app, "", [&](const CLI::App& command, const std::string& path) {
    if (!path.empty()) absl::StrAppend(&commands, commands.empty() ? "" : "|", "\"", path, "\"");
    absl::StrAppend(&words, "    \"", path, "\") words=\"", Words(command), "\" ;;\n");
  });
  const std::string function = absl::StrReplaceAll(app.get_name(), {{"-", "_"}});
  return absl::StrCat("# bash completion of ", app.get_name(), ": its commands and options.\n_",
                      function,
                      "() {\n"
                      "  local path= next words= i\n"
                      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
                      "    next=\"${path:+$path }${COMP_WORDS[i]}\"\n"
                      "    case \"$next\" in ",
                      commands,
                      ") path=$next ;; esac\n"
                      "  done\n"
                      "  case \"$path\" in\n",
                      words,
                      "  esac\n"
                      "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
                      "}\n"
                      "complete -o default -F _",
                      function, " ", app.get_name(), "\n");
}

std::string ManPage(const CLI::App& app, absl::string_view version) {
  const std::string name = Roff(app.get_name());
  std::string page = absl::StrCat(
      ".TH ", absl::AsciiStrToUpper(app.get_name()), " 8 \"\" \"", version, "\"\n.SH NAME\n", name,
      " \\- Nomad task driver for Jenkins agents, and its command line\n.SH SYNOPSIS\n.B ", name,
      "\n.I COMMAND\n[\\fIOPTION\\fR]...\n.SH DESCRIPTION\n"
      "Launched by Nomad from its plugin_dir this program is the driver jenkins\\-agent.\n"
      "Started by a person it is the command line below.\n.SH COMMANDS\n");
  ForEachCommand(app, "", [&](const CLI::App& command, const std::string& path) {
    if (path.empty()) return;
    absl::StrAppend(&page, ".SS ", Roff(path), "\n", Roff(command.get_description()), "\n");
    for (const CLI::Option* option : Options(command)) {
      if (option != command.get_help_ptr()) absl::StrAppend(&page, RoffOption(*option));
    }
  });
  return absl::StrCat(page, std::string(kEnvironment), std::string(kFiles),
                      ".SH SEE ALSO\n.BR nomad (1)\n");
}

void AddDescribe(CLI::App& app, const std::string& version) {
  CLI::App* const describe = app.add_subcommand("describe", "For packages")->group("");
  describe->require_subcommand(1);
  describe->add_subcommand("bash", "A bash completion")->callback([&app] {
    std::cout << BashCompletion(app);
  });
  describe->add_subcommand("man", "A manual page")->callback([&app, version] {
    std::cout << ManPage(app, version);
  });
}

}  // namespace jenkins_agent
