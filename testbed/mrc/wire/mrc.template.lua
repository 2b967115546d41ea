-- Wireshark dissector for MRC. Made from the table of the wire format by `testbed mrc dissector`; do not edit.
-- Works with Wireshark 3.6 and newer, under Lua 5.2 to 5.4.

--@TABLE@

local mrc = Proto("mrc", "Multipath Reliable Connection")
mrc.prefs.port = Pref.uint("UDP port", PORT, "UDP destination port of MRC")

local ICRC_BYTES = 4
local integers = {
    unsigned = {ProtoField.uint8, ProtoField.uint16, ProtoField.uint24, ProtoField.uint32, [8] = ProtoField.uint64},
    signed = {ProtoField.int8, ProtoField.int16, ProtoField.int24, ProtoField.int32, [8] = ProtoField.int64},
}

-- A field is read from the whole bytes it touches, through a mask; where no integer is as long, its bytes are shown.
local function proto_field(header, field)
    local first = math.floor(field.offset / 8)
    local count = math.floor((field.offset + field.bits - 1) / 8) - first + 1
    field.first, field.count = first, count
    local filter = "mrc." .. header:lower() .. "." .. field.name
    local make = integers[field.signed and "signed" or "unsigned"][count]
    if not make then
        return ProtoField.bytes(filter, field.name, base.NONE, field.meaning)
    end
    local mask = nil
    if field.bits < 8 * count then
        mask = (2 ^ field.bits - 1) * 2 ^ (8 * (first + count) - field.offset - field.bits)
        mask = math.tointeger and math.tointeger(mask) or mask
    end
    local names = field.names and ENUMERATIONS[field.names] or nil
    return make(filter, field.name, field.hex and base.HEX or base.DEC, names, mask, field.meaning)
end

local fields = {}
for name, header in pairs(HEADERS) do
    for _, field in ipairs(header.fields) do
        field.proto = proto_field(name, field)
        table.insert(fields, field.proto)
    end
end
local ev_field = ProtoField.uint32("mrc.ev", "Entropy value", base.HEX, nil, nil, "From UDP source port and flow label")
local payload_field = ProtoField.bytes("mrc.payload", "Payload")
local length_field = ProtoField.uint32("mrc.payload_length", "Payload bytes")
local pad_field = ProtoField.bytes("mrc.padding", "Padding")
local icrc_field = ProtoField.bytes("mrc.icrc", "ICRC")
for _, field in ipairs({ev_field, payload_field, length_field, pad_field, icrc_field}) do
    table.insert(fields, field)
end
mrc.fields = fields

local unknown = ProtoExpert.new("mrc.unknown_opcode", "Opcode not in the tables", expert.group.PROTOCOL, expert.severity.WARN)
local short = ProtoExpert.new("mrc.short", "Packet ends within its headers", expert.group.MALFORMED, expert.severity.ERROR)
local reserved = ProtoExpert.new("mrc.reserved", "Reserved bits are not 0", expert.group.PROTOCOL, expert.severity.NOTE)
mrc.experts = {unknown, short, reserved}

local flow_label = Field.new("ipv6.flow")

-- Of several IPv6 headers the first is the outermost.
local function entropy(pinfo)
    local labels = {flow_label()}
    local chosen = labels[EV_FLOW_LABEL_IN == "outer" and 1 or #labels]
    if not chosen then
        return nil
    end
    if EV_FLOW_LABEL == "low20" then
        return chosen.value
    end
    return (chosen.value % 65536) * 65536 + pinfo.src_port
end

local function bits(tvb, at, field)
    return tvb(at + field.first, field.count):bitfield(field.offset - 8 * field.first, field.bits)
end

local function is_zero(tvb, at, field)
    if field.count <= 4 then
        return bits(tvb, at, field) == 0
    end
    for i = 0, field.count - 1 do
        if tvb(at + field.first + i, 1):uint() ~= 0 then
            return false
        end
    end
    return true
end

local function add_header(tvb, at, name, tree)
    local header = HEADERS[name]
    local branch = tree:add(mrc, tvb(at, header.bytes), name)
    for _, field in ipairs(header.fields) do
        local item = branch:add(field.proto, tvb(at + field.first, field.count))
        if field.name:find("^reserved") and not is_zero(tvb, at, field) then
            item:add_proto_expert_info(reserved)
        end
    end
end

local function value_of(tvb, name)
    for _, field in ipairs(HEADERS.BTH.fields) do
        if field.name == name then
            return bits(tvb, 0, field)
        end
    end
end

function mrc.dissector(tvb, pinfo, tree)
    local total = tvb:reported_length_remaining()
    if tvb:len() < HEADERS.BTH.bytes then
        return 0
    end
    local number = tvb(0, 1):uint()
    local opcode = OPCODES[number]
    local name = opcode and opcode.name or string.format("opcode 0x%02x", number)
    pinfo.cols.protocol = "MRC"
    pinfo.cols.info = string.format("%s qp 0x%06x psn %d", name, value_of(tvb, "dqp"), value_of(tvb, "psn"))
    local top = tree:add(mrc, tvb(), "MRC, " .. name .. ", reading " .. READING)
    local ev = entropy(pinfo)
    if ev then
        top:add(ev_field, ev):set_generated()
    end
    add_header(tvb, 0, "BTH", top)
    local at = HEADERS.BTH.bytes
    if not opcode then
        top:add_proto_expert_info(unknown)
    else
        for _, header in ipairs(opcode.headers) do
            if header ~= "TSETH" or value_of(tvb, "ts") == 1 then
                if at + HEADERS[header].bytes > math.min(tvb:len(), total - ICRC_BYTES) then
                    top:add_proto_expert_info(short)
                    return tvb:len()
                end
                add_header(tvb, at, header, top)
                at = at + HEADERS[header].bytes
            end
        end
    end
    local pad = value_of(tvb, "pad")
    local stop = total - ICRC_BYTES
    local payload = math.max(0, stop - at - pad)
    if opcode and opcode.payload then
        top:add(length_field, payload):set_generated()
    end
    local captured = math.min(payload, math.max(0, tvb:len() - at))
    if captured > 0 then
        top:add(payload_field, tvb(at, captured))
    end
    if pad > 0 and stop - pad >= at and stop <= tvb:len() then
        top:add(pad_field, tvb(stop - pad, pad))
    end
    if stop >= at and total <= tvb:len() then
        top:add(icrc_field, tvb(stop, ICRC_BYTES))
    end
    return tvb:len()
end

-- RoCEv2 has the same port: what is not MRC goes to whom the port belonged before.
local ports = DissectorTable.get("udp.port")
local before = {}
local taken = nil

local shared = Proto("mrc_port", "MRC, or what else uses its UDP port")
function shared.dissector(tvb, pinfo, tree)
    if tvb:len() >= HEADERS.BTH.bytes and OPCODES[tvb(0, 1):uint()] then
        return mrc.dissector(tvb, pinfo, tree)
    end
    local labels = {flow_label()}
    if #labels > 1 and tvb:len() >= HEADERS.BTH.bytes or not before[taken] then
        return mrc.dissector(tvb, pinfo, tree)
    end
    return before[taken]:call(tvb, pinfo, tree)
end

local function take(port)
    if taken then
        ports:remove(taken, shared)
        if before[taken] then
            ports:add(taken, before[taken])
        end
    end
    taken = port
    if before[port] == nil then
        before[port] = ports:get_dissector(port) or false
    end
    ports:add(port, shared)
end

function mrc.prefs_changed()
    if mrc.prefs.port ~= taken then
        take(mrc.prefs.port)
    end
end

-- Wireshark asks the owner of the lower port first, and an EV's source port may be anybody's: 53 is DNS's. Heuristics
-- come before that where udp.try_heuristic_first is set.
mrc:register_heuristic("udp", function(tvb, pinfo, tree)
    local labels = {flow_label()}
    if pinfo.dst_port ~= taken or #labels < 2 or tvb:len() < HEADERS.BTH.bytes or not OPCODES[tvb(0, 1):uint()] then
        return false
    end
    mrc.dissector(tvb, pinfo, tree)
    return true
end)

take(PORT)
ports:add_for_decode_as(mrc)
