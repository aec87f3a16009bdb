#include "driver/supervisor/init_protocol.h"

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

struct Header {
  char kind;
  bool takes_entrants;
  uint32_t number;
  uint32_t session;
  uint32_t error_code;
  int64_t began_ns;
  int64_t built_ns;
};

struct RequestHeader {
  char kind;
  bool tty;
  bool merge_stderr;
  uint32_t session;
  pid_t entrant;
};

struct CgroupsHeader {
  uint32_t doors;  // names; those of the trees follow, each with a NUL behind it
  uint32_t door_fds;
};

}  // namespace

absl::Status SendReport(int socket, const InitReport& report) {
  Header header = {};
  header.kind = static_cast<char>(report.kind);
  header.takes_entrants = report.takes_entrants;
  header.number = report.number;
  header.session = report.session;
  header.error_code = static_cast<uint32_t>(report.error.code());
  header.began_ns = report.began_ns;
  header.built_ns = report.built_ns;
  std::string data(reinterpret_cast<const char*>(&header), sizeof(header));
  absl::StrAppend(&data, report.error.message());
  std::vector<int> fds;
  if (report.payload) fds.push_back(report.payload.get());
  for (const Fd& fd : report.stdio) fds.push_back(fd.get());
  return SendPacket(socket, data, fds);
}

absl::StatusOr<InitReport> ReceiveReport(int socket) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(socket));
  Header header;
  if (packet.data.size() < sizeof(header)) {
    return absl::InternalError("report of pid 1 is too short");
  }
  std::memcpy(&header, packet.data.data(), sizeof(header));
  InitReport report;
  report.kind = static_cast<InitReport::Kind>(header.kind);
  report.takes_entrants = header.takes_entrants;
  report.number = header.number;
  report.session = header.session;
  report.began_ns = header.began_ns;
  report.built_ns = header.built_ns;
  report.error = absl::Status(static_cast<absl::StatusCode>(header.error_code),
                              packet.data.substr(sizeof(header)));
  if (report.kind == InitReport::Kind::kLaunched && !packet.fds.empty()) {
    report.payload = std::move(packet.fds.front());
  } else {
    report.stdio = std::move(packet.fds);
  }
  return report;
}

absl::Status SendRequest(int socket, const InitRequest& request) {
  RequestHeader header = {};
  header.kind = static_cast<char>(request.kind);
  header.tty = request.tty;
  header.merge_stderr = request.merge_stderr;
  header.session = request.session;
  header.entrant = request.entrant.pid;
  const absl::string_view data(reinterpret_cast<const char*>(&header), sizeof(header));
  if (request.program.argv().empty()) return SendPacket(socket, data);
  ASSIGN_OR_RETURN(const Fd memfd, MakeSealedMemfd("program", request.program.SerializeAsString()));
  std::vector<int> fds = {memfd.get()};
  if (header.entrant != 0) fds.push_back(request.entrant.channel.get());
  return SendPacket(socket, data, fds);
}

absl::Status SendLaunch(int socket, const pb::ProgramSpec& program, Entrant entrant) {
  InitRequest request;
  request.program = program;
  request.entrant = std::move(entrant);
  return SendRequest(socket, request);
}

absl::StatusOr<InitRequest> ReceiveRequest(int socket) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(socket));
  RequestHeader header;
  if (packet.data.size() != sizeof(header)) return absl::InternalError("request is garbled");
  std::memcpy(&header, packet.data.data(), sizeof(header));
  InitRequest request;
  request.kind = static_cast<InitRequest::Kind>(header.kind);
  request.tty = header.tty;
  request.merge_stderr = header.merge_stderr;
  request.session = header.session;
  if (packet.fds.empty()) return request;
  request.packed_program = std::move(packet.fds[0]);
  if (header.entrant != 0 && packet.fds.size() > 1) {
    request.entrant = {header.entrant, std::move(packet.fds[1])};
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(request.packed_program.get(), kMaxSpecBytes));
  if (!request.program.ParseFromString(bytes)) return absl::InternalError("request is garbled");
  return request;
}

absl::Status SendOrder(int socket, int spec, int root_template) {
  return SendPacket(socket, "order", {spec, root_template});
}

absl::StatusOr<SandboxOrder> ReceiveOrder(int socket) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(socket));
  if (packet.fds.size() != 2) return absl::InternalError("order is garbled");
  return SandboxOrder{std::move(packet.fds[0]), std::move(packet.fds[1])};
}

absl::Status SendCgroups(int socket, const cgroups::Cgroup& cgroup) {
  const cgroups::Cgroup::Doors doors = cgroup.doors();
  std::vector<CgroupView> views;
  for (const cgroups::Cgroup::View& view : cgroup.views()) {
    views.push_back({view.name, view.dir_fd});
  }
  ASSIGN_OR_RETURN(const std::vector<CgroupTree> trees, CloneCgroups(views));
  const CgroupsHeader header = {static_cast<uint32_t>(doors.names.size()),
                                static_cast<uint32_t>(doors.fds.size())};
  std::string data(reinterpret_cast<const char*>(&header), sizeof(header));
  for (const std::string& name : doors.names) data.append(name.c_str(), name.size() + 1);
  std::vector<int> fds = doors.fds;
  for (const CgroupTree& tree : trees) {
    data.append(tree.name.c_str(), tree.name.size() + 1);
    fds.push_back(tree.tree.get());
  }
  return SendPacket(socket, data, fds);
}

absl::StatusOr<InitCgroups> ReceiveCgroups(int socket) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(socket));
  CgroupsHeader header;
  if (packet.data.size() < sizeof(header)) return absl::InternalError("cgroups are garbled");
  std::memcpy(&header, packet.data.data(), sizeof(header));
  std::vector<std::string> names = absl::StrSplit(packet.data.substr(sizeof(header)), '\0');
  names.pop_back();  // behind the last NUL
  const size_t trees = names.size() - header.doors;
  if (header.doors > names.size() || packet.fds.size() != header.door_fds + trees) {
    return absl::InternalError("cgroups are garbled");
  }
  InitCgroups cgroups;
  cgroups.doors.assign(names.begin(), names.begin() + header.doors);
  auto fd = packet.fds.begin();
  for (; cgroups.door_fds.size() < header.door_fds; ++fd) {
    cgroups.door_fds.push_back(std::move(*fd));
  }
  for (auto name = names.begin() + header.doors; name != names.end(); ++name, ++fd) {
    cgroups.trees.push_back({std::move(*name), std::move(*fd)});
  }
  return cgroups;
}

}  // namespace jenkins_agent
