"""Membership-inference attacks."""
